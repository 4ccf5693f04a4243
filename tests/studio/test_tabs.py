"""What the tabs check before any work."""

import shlex
from pathlib import Path
from threading import Event

import pytest
from helpers.exploring import inventory

from undiffuse.exploration.suggestion import Request as SuggestionRequest
from undiffuse.exploration.suggestion import SecondsPerImage, suggest
from undiffuse.runs.find import SHIPPED
from undiffuse.runs.run import create_run
from undiffuse.studio.compare import MOST_COLUMNS, columns, compared
from undiffuse.studio.context import Studio
from undiffuse.studio.places import Places
from undiffuse.studio.runs import run_list
from undiffuse.studio.train import train_words, unfinished_runs
from undiffuse.studio.visitors import explain
from undiffuse.utils.errors import WorkFailed


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(Places(), tmp_path / "temporary")


def test_every_run_meets_every_sampler_with_the_same_seeds() -> None:
    asked = columns(["a", "b", "a"], ["heun", "euler"], steps=5, guidance=1.0, seed=3, count=4)
    assert [(each.run, each.sampler) for each in asked] == [
        ("a", "heun"),
        ("a", "euler"),
        ("b", "heun"),
        ("b", "euler"),
    ]
    assert {(each.steps, each.seed, each.count) for each in asked} == {(5, 3, 4)}


@pytest.mark.parametrize(
    ("runs", "samplers", "count", "says"),
    [
        (None, ["heun"], 1, "at least one"),
        (["a"], [], 1, "at least one"),
        (["a", "b"], [str(i) for i in range(MOST_COLUMNS)], 1, "too many to look at"),
        (["a"], ["heun"], 17, "too many to look at"),
    ],
)
def test_a_comparison_that_nobody_can_look_at_is_refused(runs, samplers, count: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        columns(runs, samplers, count=count)


def test_a_training_is_the_words_of_the_command_line(studio: Studio) -> None:
    data = str(studio.places.uploads / "roses-0123abcd.zip")
    words, folder = train_words(studio, data, "My roses/../../x", "32x48", 2.5, classes=False)
    assert words == ["--data", data, "--size", "32x48", "--minutes", "2.5", "--unconditional"]
    assert folder.parent == studio.places.runs_folder


def test_a_training_may_start_from_a_shipped_model_or_a_run(studio: Studio, preset_config) -> None:
    data = str(studio.places.uploads / "roses-0123abcd.zip")
    words, _ = train_words(studio, data, "mine", "32", 2, classes=True, origin="digits")
    assert words[6:] == ["--from", str(SHIPPED / "digits"), "--channels", "1"]
    source = create_run(Path("runs/source"), preset_config("small")).folder.absolute()
    words, _ = train_words(studio, data, "mine", "32", 2, classes=False, origin="source")
    assert words[6:] == ["--unconditional", "--from", str(source), "--channels", "3"]
    with pytest.raises(ValueError, match=r"no run '\.\./x'"):
        train_words(studio, data, "mine", "32", 2, classes=True, origin="../x")


def test_a_training_has_the_settings_of_what_was_suggested(studio: Studio) -> None:
    def measure(preset: str, size: tuple[int, int]) -> SecondsPerImage:
        return SecondsPerImage(0.01, 0.01)

    data = str(studio.places.uploads / "roses-0123abcd.zip")
    first = suggest(inventory({(64, 64): 300}), SuggestionRequest("photos"), (64, 64), "cpu", measure)
    words, _ = train_words(studio, data, "mine", "64", 2, classes=True, suggestion=first)
    assert words[6:] == ["--preset", "small", "--set", "augmentation.patches=0.5"]
    assert shlex.split(first.command)[-2:] == words[-2:]
    # Sizes that cannot be cut in four are trained whole, and a run that training starts from has its own settings.
    words, _ = train_words(studio, data, "mine", "24", 2, classes=True, suggestion=first)
    assert words[6:] == ["--preset", "small"]
    words, _ = train_words(studio, data, "mine", "64", 2, classes=True, origin="digits", suggestion=first)
    assert words[6:] == ["--from", str(SHIPPED / "digits"), "--channels", "1"]
    many = suggest(inventory({(64, 64): 3000}), SuggestionRequest("photos"), (64, 64), "cuda", measure)
    words, _ = train_words(studio, data, "mine", "64", 2, classes=True, suggestion=many)
    assert words[6:] == ["--preset", "flowers64"]


def test_runs_that_make_images_from_others_are_a_sentence_in_a_comparison(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, told_model
) -> None:
    monkeypatch.setattr(studio.models, "load", lambda name: told_model(name))
    asked = columns(["low-res", "table"], ["euler"], steps=2, count=1)
    *_, page = compared(studio, asked, Event())
    assert "makes images from others: give it one in the tab Generate" in page
    assert page.count("<img") == 1


@pytest.mark.parametrize(
    ("data", "name", "size", "minutes", "says"),
    [
        ("", "x", "32", 1, "Drop photos"),
        ("/etc/passwd", "x", "32", 1, "Drop photos"),
        ("UPLOADS/../../secret.zip", "x", "32", 1, "Drop photos"),
        ("UPLOADS/a.zip", "x", "big", 1, "is not a size"),
        ("UPLOADS/a.zip", "x", "4096", 1, "at most 256"),
        ("UPLOADS/a.zip", "x", "32", 0, "cannot be a budget"),
        ("UPLOADS/a.zip", "x", "32", float("nan"), "cannot be a budget"),
        ("UPLOADS/a.zip", "there", "32", 1, "a run there already"),
    ],
)
def test_a_training_that_cannot_be_is_refused(
    studio: Studio, preset_config, data: str, name: str, size: str, minutes: float, says: str
) -> None:
    create_run(Path("runs/there"), preset_config("small"))
    with pytest.raises(ValueError, match=says):
        train_words(studio, data.replace("UPLOADS", str(studio.places.uploads)), name, size, minutes, classes=True)


def test_a_broken_run_is_one_sentence_among_the_others(studio: Studio, preset_config) -> None:
    assert "There are no runs yet" in run_list(studio)
    create_run(Path("runs/good"), preset_config("small"))
    create_run(Path("runs/<b>"), preset_config("small"))
    Path("runs/<b>/config.json").write_text("[" * 50)
    listed = run_list(studio)
    assert "&lt;b&gt;" in listed
    assert "is not the config of a run" in listed
    assert "small, 32x32, 3 classes" in listed
    assert "<b>" not in listed
    assert {*unfinished_runs(studio)} == {"good", "<b>"}


def test_mistakes_are_sentences_and_bugs_are_named() -> None:
    assert explain(ValueError("--steps 0 is too small.")) == "--steps 0 is too small."
    assert explain(WorkFailed("Out of memory.")) == "Out of memory."
    assert explain(PermissionError(13, "Permission denied", "runs/x")) == "Permission denied: runs/x"
    assert "KeyError" in explain(KeyError("secret"))
    assert "secret" not in explain(KeyError("secret"))
