import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.making import run_python

from undiffuse.data.paths import (
    DATASETS,
    DataLike,
    Layout,
    check_condition,
    check_data,
    data_name,
    folder_name,
    is_image,
    is_table,
    left_out,
    printable,
    read_layout,
    source_name,
    suffix_of,
)
from undiffuse.utils.names import Split


def classes(paths: list[str], split: Split = "auto") -> dict[str, str | None]:
    """The class name of each path that is taken."""
    layout = read_layout(paths, split, "here")
    names = [layout.class_names[label] if label >= 0 else None for label in layout.labels]
    return dict(zip(layout.names, names, strict=True))


def test_folders_are_classes_in_alphabetical_order() -> None:
    layout = read_layout(["dogs/1.png", "cats/1.png", "cats/2.png"], "auto", "here")
    assert layout.class_names == ("cats", "dogs")
    assert layout.labels == [1, 0, 0]
    assert layout.split == "all"
    assert layout.notices == ()


def test_only_the_first_level_that_differs_gives_classes() -> None:
    paths = ["photos/animals/cats/siamese/1.png", "photos/animals/dogs/1.png", "photos/animals/cats/2.png"]
    assert classes(paths) == {paths[0]: "cats", paths[1]: "dogs", paths[2]: "cats"}


def test_a_single_folder_is_not_a_class() -> None:
    assert classes(["1.png", "2.png"]) == {"1.png": None, "2.png": None}
    assert classes(["cats/1.png", "cats/2.png"]) == {"cats/1.png": None, "cats/2.png": None}
    assert classes(["cats/1.png"]) == {"cats/1.png": None}


def test_images_outside_of_class_folders_are_unsorted() -> None:
    assert classes(["1.png", "cats/1.png"]) == {"1.png": "unsorted", "cats/1.png": "cats"}


SPLIT = ["train/dogs/1.png", "train/cats/1.png", "train/cats/2.png", "test/cats/3.png", "test/emus/1.png"]


def test_the_train_split_is_taken_with_a_notice() -> None:
    layout = read_layout(SPLIT, "auto", "here")
    assert layout.split == "train"
    assert layout.names == SPLIT[:3]
    (notice,) = layout.notices
    assert "test, train: using train" in notice
    assert "--split all" in notice


def test_labels_mean_the_same_in_every_split() -> None:
    of_split = {split: read_layout(SPLIT, split, "here") for split in ("train", "test", "all")}
    assert {layout.class_names for layout in of_split.values()} == {("cats", "dogs", "emus")}
    assert of_split["train"].labels == [1, 0, 0]
    assert of_split["test"].labels == [0, 2]
    assert of_split["all"].labels == [1, 0, 0, 0, 2]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "validation", "test")],
)
def test_splits_go_by_several_names(train: str, val: str, test: str) -> None:
    paths = [f"{train}/a/1.png", f"{val}/b/1.png", f"{test}/a/1.png"]
    assert classes(paths, "train") == {paths[0]: "a"}
    assert classes(paths, "val") == {paths[1]: "b"}
    assert classes(paths, "test") == {paths[2]: "a"}


def test_folders_around_and_inside_splits_are_ignored() -> None:
    paths = ["set/train/images/a/1.png", "set/train/images/b/1.png", "set/test/images/a/1.png"]
    assert classes(paths) == {paths[0]: "a", paths[1]: "b"}


def test_splits_without_classes_have_none() -> None:
    assert classes(["train/1.png", "test/1.png"], "all") == {"train/1.png": None, "test/1.png": None}


def test_all_splits_are_taken_if_there_is_no_train() -> None:
    assert classes(["val/a/1.png", "test/b/1.png"]) == {"val/a/1.png": "a", "test/b/1.png": "b"}


def test_folders_are_classes_if_only_some_are_layout_like_splits() -> None:
    assert classes(["train/1.png", "bus/1.png"]) == {"train/1.png": "train", "bus/1.png": "bus"}


def test_a_layout_is_never_cut_to_its_shortest_column() -> None:
    layout = Layout("all", ("cats", "dogs"), ["0", "1", "2"], [0, 1, 1], ["", "", ""])
    assert list(layout.rows(1)) == [("1", 1, ""), ("2", 1, "")]
    for short in ({"labels": [0, 1]}, {"names": ["0", "1"]}, {"splits": []}):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            list(replace(layout, **short).rows())


def test_a_missing_split_is_refused_with_a_list_of_others() -> None:
    with pytest.raises(ValueError, match="here has no split val: choose test, train or all"):
        read_layout(SPLIT, "val", "here")
    with pytest.raises(ValueError, match="here has no folders named train, val or test"):
        read_layout(["cats/1.png", "dogs/1.png"], "train", "here")


def test_class_names_are_text_whatever_the_bytes_of_the_folders() -> None:
    folders = [os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe8", "日本".encode(), b"a\x1b[31m")]
    layout = read_layout([f"{folder}/1.png" for folder in folders], "auto", "here")
    assert len(set(layout.labels)) == 4
    assert sorted(layout.class_names) == ["a�[31m", "caf�", "caf�", "日本"]
    assert "".join(layout.class_names).encode("utf-8").decode().isprintable()


@pytest.mark.parametrize(
    "name", ["a.jpg", "A.JPG", "b.JpEg", "c/d/e.f.png", "x.TIF", "my photo [1].webp", "ü.gif", "p.pgm"]
)
def test_images_are_recognized_by_suffix_in_any_case(name: str) -> None:
    assert is_image(name)


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "jpg",
        "a.jpg.txt",
        "a.eps",
        "a.svg",
        ".a.jpg",
        "._a.jpg",
        ".git/a.jpg",
        "__MACOSX/b/._a.jpg",
        "../a.jpg",
    ],
)
def test_other_and_hidden_files_are_not_images(name: str) -> None:
    assert not is_image(name)


def test_what_is_left_out_is_told_by_kind_and_photos_among_it_named() -> None:
    names = ["a.HEIC", "b/c.heic", "notes.TXT", ".git/config.txt", "./README", "a.b c", "a.longsuffixes", "a."]
    suffixes = Counter(map(suffix_of, names))
    assert suffixes == {".heic": 2, ".txt": 1, "hidden": 1, "others": 4}
    told = left_out(suffixes)
    assert told.startswith("8 other files: others 4, .heic 2, .txt 1, hidden 1")
    assert told.endswith("; save photos in .heic as JPEG to have them")
    assert "JPEG" not in left_out(Counter([".txt"]))


def test_unprintable_characters_are_made_visible() -> None:
    assert printable(os.fsdecode(b"a\xff\nb\x1b")) == "a��b�"
    assert printable("grüße 日本 [x].png") == "grüße 日本 [x].png"


def test_a_single_split_is_a_split() -> None:
    paths = ["set/train/a/1.png", "set/train/b/1.png"]
    assert classes(paths, "train") == classes(paths) == {paths[0]: "a", paths[1]: "b"}
    assert read_layout(paths, "auto", "here").split == "train"
    with pytest.raises(ValueError, match="no split test: choose train or all"):
        read_layout(paths, "test", "here")


def test_images_outside_of_splits_are_left_out_with_a_notice() -> None:
    paths = ["cover.png", "train/a/1.png", "test/b/1.png"]
    assert classes(paths, "all") == {paths[1]: "a", paths[2]: "b"}
    assert "1 image is left out" in read_layout(paths, "all", "here").notices[0]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("photos", "photos"),
        ("My Photos [2024]", "My-Photos-2024"),
        ("..", "images"),
        ("日本", "日本"),
        ("a/b\\c:d", "a-b-c-d"),
        ("***", "images"),
    ],
)
def test_names_are_made_safe_for_folders(name: str, safe: str) -> None:
    assert folder_name(name) == safe


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("cifar10", "cifar10"),
        ("photos/summer 2024", "summer-2024"),
        ("a/photos.zip", "photos"),
        ("photos.TAR.gz", "photos.TAR"),
        ("photos.tar.xz", "photos"),
        ("v1.5", "v1.5"),
        ([1, 2], "images"),
        (range(2), "range"),
    ],
)
def test_sources_are_named_without_opening_them(data: DataLike, name: str) -> None:
    assert source_name(data) == name


def test_config_names_datasets_absolute_paths_and_sequences(tmp_path: Path) -> None:
    assert data_name("digits") == "digits"
    assert data_name(Path("photos")) == data_name("photos") == str(tmp_path / "photos")
    assert data_name([]) == "sequence:list"


def test_data_are_checked_without_opening_them(tmp_path: Path) -> None:
    for data in (*DATASETS, tmp_path, str(tmp_path), ["anything"]):
        check_data(data)
    with pytest.raises(FileNotFoundError, match=f"no data at {tmp_path / 'nowhere'}: give a folder.*flowers102"):
        check_data("nowhere")
    with pytest.raises(ValueError, match=r"sequence:MNIST stands for images .* pass them again from Python"):
        check_data("sequence:MNIST")


@pytest.mark.parametrize(
    ("condition", "table"),
    [
        ("told.csv", True),
        (Path("told.TSV"), True),
        ("told.txt", True),
        ("told.zip", False),
        ("low-res:4", False),
        ("https://host/told.csv", False),
    ],
)
def test_a_condition_is_a_table_by_its_suffix(condition: str | Path, table: bool) -> None:
    assert is_table(condition) == table


def test_a_condition_is_looked_for_before_anything_is_opened() -> None:
    Path("told.CSV").touch()
    Path("edges").mkdir()
    for good in ("told.CSV", "edges", "low-res:2", "https://host/edges.zip"):
        check_condition(good)
    for bad, says in {
        "none.csv": r"/none\.csv is not there: give a CSV file of numbers and words",
        "none": "/none is not there: give an image, a folder or archive of them, or, to train, low-res:4 or a table",
        "low-res:1": "low-res:1 is not a factor: write low-res:2",
        "ftp://host/edges.zip": "cannot be read: give an address with",
    }.items():
        with pytest.raises((FileNotFoundError, ValueError), match=says):
            check_condition(bad)


def test_checking_data_loads_nothing_slow() -> None:
    slow = ("torch", "torchvision", "sklearn", "scipy", "numpy", "pydantic")
    code = f"import sys, undiffuse.data.paths; print([name for name in {slow} if name in sys.modules])"
    assert run_python(code).strip() == "[]"
