import os

import pytest

from undiffuse.data.paths import is_image, printable, read_names
from undiffuse.utils.names import Split


def classes(paths: list[str], split: Split = "auto") -> dict[str, str | None]:
    """The class name of each path that is taken."""
    named = read_names(paths, split, "here")
    names = [named.class_names[label] if label >= 0 else None for label in named.labels]
    return {paths[i]: name for i, name in zip(named.chosen, names, strict=True)}


def test_folders_are_classes_in_the_order_of_the_alphabet() -> None:
    named = read_names(["dogs/1.png", "cats/1.png", "cats/2.png"], "auto", "here")
    assert named.class_names == ("cats", "dogs")
    assert named.labels == (1, 0, 0)
    assert named.split == "all"
    assert named.said == ()


def test_only_the_first_level_that_differs_gives_classes() -> None:
    paths = ["photos/animals/cats/siamese/1.png", "photos/animals/dogs/1.png", "photos/animals/cats/2.png"]
    assert classes(paths) == {paths[0]: "cats", paths[1]: "dogs", paths[2]: "cats"}


def test_one_folder_or_none_is_no_class() -> None:
    assert classes(["1.png", "2.png"]) == {"1.png": None, "2.png": None}
    assert classes(["cats/1.png", "cats/2.png"]) == {"cats/1.png": None, "cats/2.png": None}
    assert classes(["cats/1.png"]) == {"cats/1.png": None}


def test_images_beside_class_folders_are_unsorted() -> None:
    assert classes(["1.png", "cats/1.png"]) == {"1.png": "unsorted", "cats/1.png": "cats"}


SPLIT = ["train/dogs/1.png", "train/cats/1.png", "train/cats/2.png", "test/cats/3.png", "test/emus/1.png"]


def test_of_splits_train_is_taken_and_it_is_said() -> None:
    named = read_names(SPLIT, "auto", "here")
    assert named.split == "train"
    assert named.chosen == (0, 1, 2)
    (sentence,) = named.said
    assert "test, train" in sentence
    assert "--split all" in sentence


def test_labels_mean_the_same_in_every_split() -> None:
    of_split = {split: read_names(SPLIT, split, "here") for split in ("train", "test", "all")}
    assert {named.class_names for named in of_split.values()} == {("cats", "dogs", "emus")}
    assert of_split["train"].labels == (1, 0, 0)
    assert of_split["test"].labels == (0, 2)
    assert of_split["all"].labels == (1, 0, 0, 0, 2)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "validation", "test")],
)
def test_splits_go_by_several_names(train: str, val: str, test: str) -> None:
    paths = [f"{train}/a/1.png", f"{val}/b/1.png", f"{test}/a/1.png"]
    assert classes(paths, "train") == {paths[0]: "a"}
    assert classes(paths, "val") == {paths[1]: "b"}
    assert classes(paths, "test") == {paths[2]: "a"}


def test_wrappers_above_and_below_splits_say_nothing() -> None:
    paths = ["set/train/images/a/1.png", "set/train/images/b/1.png", "set/test/images/a/1.png"]
    assert classes(paths) == {paths[0]: "a", paths[1]: "b"}


def test_splits_without_classes_have_none() -> None:
    assert classes(["train/1.png", "test/1.png"], "all") == {"train/1.png": None, "test/1.png": None}


def test_without_train_everything_is_taken() -> None:
    assert classes(["val/a/1.png", "test/b/1.png"]) == {"val/a/1.png": "a", "test/b/1.png": "b"}


def test_folders_of_which_only_some_are_named_like_splits_are_classes() -> None:
    assert classes(["train/1.png", "bus/1.png"]) == {"train/1.png": "train", "bus/1.png": "bus"}


def test_a_split_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="here has no split val: choose test, train or all"):
        read_names(SPLIT, "val", "here")
    with pytest.raises(ValueError, match="here has no folders named train, val or test"):
        read_names(["cats/1.png", "dogs/1.png"], "train", "here")


def test_class_names_are_text_whatever_bytes_the_folders_names_have() -> None:
    folders = [os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe8", "日本".encode(), b"a\x1b[31m")]
    named = read_names([f"{folder}/1.png" for folder in folders], "auto", "here")
    assert len(set(named.labels)) == 4
    assert sorted(named.class_names) == ["a�[31m", "caf�", "caf�", "日本"]
    assert "".join(named.class_names).encode("utf-8").decode().isprintable()


@pytest.mark.parametrize(
    "name", ["a.jpg", "A.JPG", "b.JpEg", "c/d/e.f.png", "x.TIF", "my photo [1].webp", "ü.gif", "p.pgm"]
)
def test_images_go_by_their_suffix_in_any_case(name: str) -> None:
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
def test_other_and_hidden_files_are_no_images(name: str) -> None:
    assert not is_image(name)


def test_printable_shows_that_something_is_there() -> None:
    assert printable(os.fsdecode(b"a\xff\nb\x1b")) == "a��b�"
    assert printable("grüße 日本 [x].png") == "grüße 日本 [x].png"


def test_a_split_alone_is_a_split() -> None:
    paths = ["set/train/a/1.png", "set/train/b/1.png"]
    assert classes(paths, "train") == classes(paths) == {paths[0]: "a", paths[1]: "b"}
    assert read_names(paths, "auto", "here").split == "train"
    with pytest.raises(ValueError, match="no split test: choose train or all"):
        read_names(paths, "test", "here")


def test_images_beside_splits_belong_to_none_and_it_is_said() -> None:
    paths = ["cover.png", "train/a/1.png", "test/b/1.png"]
    assert classes(paths, "all") == {paths[1]: "a", paths[2]: "b"}
    assert "1 images in here lie beside" in read_names(paths, "all", "here").said[0]
