"""Tables beside the images: what is read, how images are found, and which rows are named as bad."""

from pathlib import Path

import numpy as np
import pytest

from undiffuse.data.columns import AttributesConfig, CategoryColumn, NumberColumn, checked_value
from undiffuse.data.table import Table, read_table

NAMES = ["rose/1.jpg", "rose/2.jpg", "tulip/1.jpg", "tulip/3.jpg"]


def written(text: str, encoding: str = "utf-8", name: str = "table.csv") -> Path:
    path = Path(name)
    path.write_bytes(text.encode(encoding))
    return path


def read(text: str, names: list[str] = NAMES, encoding: str = "utf-8") -> Table:
    return read_table(written(text, encoding), names)


def test_numbers_are_standardized_and_words_indexed(notices: pytest.LogCaptureFixture) -> None:
    table = read(
        "file,age,color,kind,unit\nrose/1.jpg,1,red,,cm\ntulip/3.jpg,3,blue,NA,cm\n\ntulip/1.jpg, nan ,red,n/a,cm\n"
    )
    age, color = table.config.columns
    assert (age.name, color.name) == ("age", "color")
    assert isinstance(age, NumberColumn)
    assert isinstance(color, CategoryColumn)
    assert (age.mean, age.deviation, age.low, age.high) == (2, 1, 1, 3)
    assert color.values == ("blue", "red")
    np.testing.assert_array_equal(table.numbers, np.array([[-1], [np.nan], [np.nan], [1]], np.float32))
    np.testing.assert_array_equal(table.categories, [[1], [-1], [1], [0]])
    assert "1 of 4 images have no row" in notices.text
    assert "column kind is left out" in notices.text
    assert "column unit is left out" in notices.text
    numbers, categories = table.told([3, 0])
    assert numbers is not None
    assert categories is not None
    assert numbers.tolist() == [[1], [-1]]
    assert categories.tolist() == [[0], [1]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_save_it_in_several_ways(delimiter: str, encoding: str) -> None:
    rows = [["größe", "path"], ["1.5", r".\rose\1.jpg"], ["2.5", '"2.jpg"']]
    if delimiter != ",":
        rows[1][0] = "1,5"
    table = read("\r\n".join(delimiter.join(row) for row in rows), encoding=encoding)
    assert table.config.columns == (NumberColumn("größe", 2.0, 0.5, 1.5, 2.5),)
    np.testing.assert_array_equal(table.numbers[:, 0], np.array([-1, 1, np.nan, np.nan], np.float32))


def test_images_of_datasets_and_arrays_are_found_by_number() -> None:
    for names in (["digit-0000", "digit-0001", "digit-0002"], ["00", "01", "02"]):
        table = read("image,a\n2,5\n00,1\n", names)
        np.testing.assert_array_equal(table.numbers[:, 0], np.array([-1, np.nan, 1], np.float32))


def test_rows_of_images_that_cannot_be_decoded_are_no_mistake() -> None:
    path = written("file,a\nrose/1.jpg,1\nbad.jpg,2\nrose/2.jpg,3\n")
    assert read_table(path, NAMES, ["bad.jpg"]).config.numbers[0].mean == 2
    with pytest.raises(ValueError, match=r"row 3: bad\.jpg is not among the images"):
        read_table(path, NAMES)


def test_numbers_that_are_names_are_no_places() -> None:
    names = [f"{i:02}" for i in range(20) if i != 5]
    path = written("\n".join(["image,a", *(f"{i},{i * i}" for i in range(20))]))
    column = read_table(path, names, ["05"]).config.numbers[0]
    table = read_table(path, names, ["05"])
    values = table.numbers[:, 0] * column.deviation + column.mean
    np.testing.assert_allclose(values, [i * i for i in range(20) if i != 5], rtol=1e-4, atol=1e-3)


def test_what_is_skipped_shares_no_last_part() -> None:
    path = written("file,a\n1.jpg,1\nrose/2.jpg,2\nlily/3.jpg,3\n")
    with pytest.raises(ValueError, match=r"row 2: 1\.jpg is not among the images"):
        read_table(path, ["rose/1.jpg", "rose/2.jpg", "lily/3.jpg"], ["lily/1.jpg"])


def test_rows_of_other_splits_are_counted(notices: pytest.LogCaptureFixture) -> None:
    names, others = ["train/a/0.png", "train/a/1.png"], ["test/a/0.png", "test/b/7.png"]
    path = written("file,x\ntrain/a/0.png,1\ntest/a/0.png,9\n1.png,3\n7.png,9\n")
    table = read_table(path, names, elsewhere=lambda: [*others, *names])
    assert table.config.numbers[0].mean == 2
    assert "2 rows of table.csv are of images in other splits" in notices.text
    path.write_text("file,x\n0.png,1\n1.png,3\ntest/c/0.png,2")
    with pytest.raises(ValueError, match=r"table\.csv: row 4: test/c/0\.png is not among the images"):
        read_table(path, names, elsewhere=lambda: [*others, *names])
    path.write_text("file,x\n0.png,1\n1.png,3")
    table = read_table(path, names, elsewhere=lambda: pytest.fail("all rows are of these images"))
    assert len(table.config.columns) == 1


def test_columns_without_a_name_are_left_out(notices: pytest.LogCaptureFixture) -> None:
    table = read(",Unnamed: 0,file,age,\n0,5,rose/1.jpg,1,x\n1,6,rose/2.jpg,3,y\n")
    assert [column.name for column in table.config.columns] == ["age"]
    assert "columns 1, 2 and 5 have no name and are left out" in notices.text
    # A data frame whose index is the names.
    assert [column.name for column in read(",age\nrose/1.jpg,1\nrose/2.jpg,3").config.columns] == ["age"]


def test_none_is_missing_and_so_are_marks() -> None:
    names = [f"{i}.png" for i in range(20)]
    for mark in ("-", "?", "None", "null"):
        rows = [f"{name},{mark if i % 5 == 0 else i}" for i, name in enumerate(names)]
        table = read("\n".join(["file,a", *rows]), names)
        assert isinstance(table.config.columns[0], NumberColumn)
        assert np.isnan(table.numbers[:, 0]).sum() == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rose/1.jpg,1\nrose/2.jpg,2\ntulip/1.jpg,3", r"row 1 is of an image, .*: .* name the columns"),
        ("./rose/1.jpg,red\nrose/2.jpg,blue", r"row 1 is of an image, \./rose/1\.jpg"),
        ("file,a\nrose/1.jpg,1\nrose/9.jpg,2\n1.jpg,2", r"row 3: rose/9\.jpg is not .*; row 4: 1\.jpg is not"),
        ("file,a\nrose/1.jpg,1\n\n./rose/1.jpg,2", r"row 4: \./rose/1\.jpg is in row 2 too"),
        ("file,a\nrose/1.jpg,1\nrose/2.jpg", r"row 3: 1 cell\. Give each row 2"),
        ("file,a,a\nrose/1.jpg,1,2", "column a is there twice"),
        ("file,a=b\nrose/1.jpg,1", "column a=b is there twice, or has = in its name"),
        ("file\nrose/1.jpg", "needs a first row"),
        ("file,a", "needs a first row"),
        ("", "needs a first row"),
        ('file,a\nrose/1.jpg,"1', "is not a CSV file"),
        ("file,a\nrose/1.jpg,1\nrose/2.jpg,1", "no column that tells one image from another"),
        ("file,a\n" + ",".join(["rose/1.jpg", "x" * 200_000]), "is not a CSV file"),
        ("file," + ",".join(f"c{i}" for i in range(300)) + "\nrose/1.jpg", "has 301 columns"),
        ("file,a\nrose/1.jpg,0.1e-320\nrose/2.jpg,0.2e-320", "a are too close to each other"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(text)


def test_a_few_words_among_numbers_are_named() -> None:
    names = [f"{i}.png" for i in range(40)]
    rows = [f"{name},{i}" for i, name in enumerate(names)]
    rows[7], rows[9] = "7.png,tall", "9.png,1e999"
    with pytest.raises(ValueError, match=r"row 9: a is 'tall'; row 11: a is '1e999'\. Of 40 values of a all others"):
        read("\n".join(["file,a", *rows]), names)
    for i in (7, 9, 11, 13):  # Four in forty.
        rows[i] = f"{i}.png,tall"
    with pytest.raises(ValueError, match=r"row 9: a is 'tall'; .* Of 40 values of a all others are numbers"):
        read("\n".join(["file,a", *rows]), names)
    half = [f"{name},{i % 4 if i % 2 else 'word'}" for i, name in enumerate(names)]
    assert read("\n".join(["file,a", *half[:20]]), names).config.categories[0].name == "a"
    unique = [f"{name},word {i}" for i, name in enumerate(names)]
    with pytest.raises(ValueError, match="column a has 40 different values in 40 images, too many"):
        read("\n".join(["file,a", *unique]), names)


def test_words_among_more_numbers_are_told(notices: pytest.LogCaptureFixture) -> None:
    names = [f"{i}.png" for i in range(40)]
    rows = [f"{name},{i % 3 if i % 4 else 'unknown'}" for i, name in enumerate(names)]
    table = read("\n".join(["file,a", *rows]), names)
    assert isinstance(table.config.columns[0], CategoryColumn)
    assert "a is taken as words: 30 of its 40 values are numbers, but not unknown" in notices.text


def test_hostile_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is not UTF-8"):
        read("file,größe\nrose/1.jpg,1", encoding="latin-1")
    with pytest.raises(FileNotFoundError, match=r"absent\.csv is not there"):
        read_table(Path("absent.csv"), NAMES)
    monkeypatch.setattr("undiffuse.data.paths.MOST_TABLE_BYTES", 10)
    with pytest.raises(ValueError, match="larger than"):
        read("file,a\nrose/1.jpg,1")


def test_the_digest_is_of_the_values_alone() -> None:
    first = read("file,a\nrose/1.jpg,1\nrose/2.jpg,2").config
    assert read("file;a\n2.jpg;2,0\nrose/1.jpg;1").config == first
    assert read("file,a\nrose/1.jpg,2\nrose/2.jpg,1").config.content != first.content


def test_numbers_keep_the_scale_that_a_network_knows() -> None:
    known = read("file,a,b\nrose/1.jpg,1,4\nrose/2.jpg,3,6").config
    again = read_table(written("file,a,c\nrose/1.jpg,10,4\nrose/2.jpg,30,6"), NAMES, known=known)
    assert again.config.numbers[0] == NumberColumn("a", 2, 1, 10, 30)
    assert again.config.numbers[1].mean == 5
    assert again.numbers[:2, 0].tolist() == [8, 28]


CONFIG = AttributesConfig((NumberColumn("age", 30, 10, 1, 90), CategoryColumn("hair", ("Brown", "blond"))), "")


def test_values_are_checked_with_a_hint() -> None:
    age, hair = CONFIG.find("age"), CONFIG.find("hair")
    assert [checked_value(age, value) for value in (30, "-3e1", "", None)] == [30, -30, None, None]
    assert [checked_value(hair, value) for value in ("blond", " Brown", "NA")] == ["blond", "Brown", None]
    with pytest.raises(ValueError, match=r"--attribute agge: .* did you mean age\?"):
        CONFIG.find("agge")
    with pytest.raises(ValueError, match="choose age, hair"):
        CONFIG.find("zzz")
    with pytest.raises(ValueError, match=r"--attribute hair=brwn: .* did you mean Brown\?"):
        checked_value(hair, "brwn")
    for wrong in ("old", "1e300", "inf", True):
        with pytest.raises(ValueError, match="from 1 to 90"):
            checked_value(age, wrong)
