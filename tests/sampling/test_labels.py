"""Labels are found by name, by index or as none, and seeds get theirs."""

import pytest

from undiffuse.sampling.labels import find_label, find_pattern, label_tensor, labels_for
from undiffuse.utils.conditions import NO_LABEL

NAMES = ("cats", "dogs", "snow")


def test_labels_go_round_all_classes_unless_one_is_given() -> None:
    assert labels_for(NAMES, [0, 1, 2, 3, 7], None) == [0, 1, 2, 0, 1]
    assert labels_for(NAMES, [0, 5], (2,)) == [2, 2]
    assert labels_for(NAMES, [0, 5], (NO_LABEL,)) == [NO_LABEL, NO_LABEL]
    assert labels_for(NAMES, [0, 1, 2, 3, 7], (2, 2, 0)) == [2, 2, 0, 2, 2]
    assert labels_for((), [0, 5], None) is None


@pytest.mark.parametrize(
    ("label", "index"), [("dogs", 1), ("2", 2), ("0", 0), ("none", NO_LABEL), ("None", NO_LABEL), ("٢", 2)]
)
def test_a_label_is_found_by_name_index_or_none(label: str, index: int) -> None:
    assert find_label(NAMES, label) == index


def test_a_class_name_comes_before_an_index_and_before_none() -> None:
    assert find_label(("2", "1", "0"), "2") == 0
    assert find_label(("some", "none"), "none") == 1


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("dogs*2,snow", (1, 1, 2)),
        ("2*3, none", (2, 2, 2, NO_LABEL)),
        ("all", (0, 1, 2)),
        ("all*2,cats", (0, 1, 2, 0, 1, 2, 0)),
        ("cats", (0,)),
    ],
)
def test_a_mix_of_labels_is_taken_in_turn(text: str, pattern: tuple[int, ...]) -> None:
    assert find_pattern(NAMES, text) == pattern


def test_a_class_may_be_called_like_a_mix() -> None:
    names = ("a,b", "c*2", "all", "a")
    assert find_pattern(names, "a,b") == (0,)
    assert find_pattern(names, "c*2") == (1,)
    assert find_pattern(names, "c*2*3,a") == (1, 1, 1, 3)
    assert find_pattern(names, "all") == (2,)


@pytest.mark.parametrize("text", ["cats*0", "cats*-1", "cats*1e3", "cats*", "cats*100001", "cats*99999,dogs*99999"])
def test_a_mix_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write how often|more than 100,000 labels"):
        find_pattern(NAMES, text)


@pytest.mark.parametrize("label", ["3", "-1", "birds", "", "1.0", "²"])
def test_an_unknown_label_is_refused_with_those_there_are(label: str) -> None:
    with pytest.raises(ValueError) as refused:
        find_label(NAMES, label)
    assert str(refused.value) == (
        f"--label {label}: this model has no such class; choose 0 to 2 or one of cats, dogs, snow."
    )


@pytest.mark.parametrize(("label", "name"), [("Cats", "cats"), ("cats ", "cats"), ("dog", "dogs"), ("sonw", "snow")])
def test_for_a_label_that_is_nearly_one_that_one_is_suggested(label: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"no such class; did you mean {name}\?$"):
        find_label(NAMES, label)


def test_of_many_classes_the_refusal_shows_the_first_twelve() -> None:
    names = tuple(f"class{i}" for i in range(100))
    with pytest.raises(ValueError, match=r"choose 0 to 99 or one of class0, .*class11, \.\.\.\.$"):
        find_label(names, "100")


def test_a_model_without_classes_refuses_every_label() -> None:
    for label in ("0", "none", "cats"):
        with pytest.raises(ValueError, match=f"^--label {label}: this model was trained without classes"):
            find_label((), label)


def test_labels_for_the_denoiser_are_one_for_all_or_one_each() -> None:
    assert label_tensor(NAMES, None, 3) is None
    for label in ("dogs", 1, ["dogs", 1, "1"]):
        same = label_tensor(NAMES, label, 3)
        assert same is not None
        assert same.tolist() == [1, 1, 1]
    each = label_tensor(NAMES, ["none", -1, 2], 3)
    assert each is not None
    assert each.tolist() == [-1, -1, 2]
    with pytest.raises(ValueError, match="2 labels for 3 images"):
        label_tensor(NAMES, [0, 1], 3)
