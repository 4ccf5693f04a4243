"""undiffuse.explore, called from Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.exploring import messy, smooth
from helpers.making import save, save_noise

import undiffuse as ud
from undiffuse.api import first_run
from undiffuse.training import cost


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The configs whose speed was measured, at 100 images/s."""
    measured: list[object] = []

    def measure(config: object, device: object) -> cost.Cost:
        measured.append(config)
        return cost.Cost(1, 1, 1, 0.01)

    monkeypatch.setattr(cost, "measure_cost", measure)
    monkeypatch.setattr(first_run, "MEASURING_SECONDS", 0.0)
    return measured


def test_it_is_quiet_writes_nothing_and_measures_nothing(measurements: list, capsys: pytest.CaptureFixture) -> None:
    save_noise(Path("p"), "a/1.png", "b/2.png")
    found = ud.explore("p")
    assert (found.inventory.images, found.duplicates.redundant, found.bad_files) == (2, 0, ())
    assert repr(found).startswith("Exploration of p\n")
    assert found.figures["classes"].axes
    assert measurements == []
    assert capsys.readouterr().out == ""
    assert [path.name for path in Path().iterdir() if path.name != "cache"] == ["p"]


def test_the_speed_is_measured_once_when_it_is_needed(measurements: list) -> None:
    save_noise(Path("p"), "1.png", "2.png")
    found = ud.explore("p")
    assert found.suggestion is not None
    assert found.to_dict()["suggestion"]["command"] == found.suggestion.command
    assert len(measurements) == 1
    assert ud.explore("p", suggest=False).suggestion is None
    assert len(measurements) == 1


def test_the_speed_is_measured_until_measurements_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work slows single measurements down: only those near the fastest count."""
    slow_then_quick = iter([3.0, 0.5, 2.0, 0.011, 0.9, 0.01, 0.0105, 99.0])
    monkeypatch.setattr(cost, "measure_cost", lambda config, device: cost.Cost(1, 1, 1, next(slow_then_quick)))
    save_noise(Path("p"), "1.png", "2.png")
    suggestion = ud.explore("p").suggestion
    assert suggestion is not None
    assert next(slow_then_quick) == 99.0
    assert suggestion.images_per_second / suggestion.slowest_images_per_second == pytest.approx(300)
    assert "other work on this machine slowed it down" in " ".join(suggestion.reasons)


def test_out_writes_what_write_writes(measurements: list) -> None:
    save_noise(Path("p"), "1.png", "2.png")
    found = ud.explore(Path("p"), size=16, out="out")
    assert found.write("again") == Path("again/report.html")
    first, second = (json.loads(Path(folder, "statistics.json").read_text()) for folder in ("out", "again"))
    assert first == second == found.to_dict()
    assert Path("out/report.html").read_text() == Path("again/report.html").read_text()


@pytest.mark.parametrize("size", [(24, 16), "24x16"])
def test_options_are_python_values_too(size: tuple[int, int] | str, measurements: list) -> None:
    save_noise(Path("p"), "1.png", "2.png")
    found = ud.explore("p", size=size, channels=1, fit="pad").to_dict()
    assert (found["size"], found["channels"], found["fit"]) == ([24, 16], 1, "pad")


def test_images_in_memory_are_explored_like_files(measurements: list) -> None:
    images = [np.asarray(smooth(i)) for i in range(6)]
    found = ud.explore([(image, "ab"[i % 2]) for i, image in enumerate([*images, images[3]])])
    assert [(one.name, one.images) for one in found.inventory.classes] == [("a", 4), ("b", 3)]
    (group,) = found.duplicates.exact_groups
    assert {image.class_name for image in group} == {"a", "b"}
    assert found.duplicates.mixed_class_groups == 1
    assert found.suggestion is not None
    assert found.suggestion.command == (
        "undiffuse.train(data, size='64', images='100k', set={'augmentation.patches': 0.5})"
    )


def test_bad_files_are_listed_or_fail_with_strict() -> None:
    folder = messy(Path("p"))
    assert len(ud.explore(folder).bad_files) == 3
    with pytest.raises(ValueError, match="cannot be decoded"):
        ud.explore(folder, strict=True)


def test_errors_are_those_of_the_command() -> None:
    save(Path("p/1.png"), smooth(0))
    with pytest.raises(FileNotFoundError, match=str(Path("nowhere").absolute())):
        ud.explore("nowhere")
    with pytest.raises(ValueError, match="--size big is not a size"):
        ud.explore("p", size="big")
    with pytest.raises(ValueError, match="lies among the images"):
        ud.explore("p", out="p/out")
