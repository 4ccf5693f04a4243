"""undiffuse measure: any two sets of images; and undiffuse evaluate --real --fake, its old form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import making
from helpers.commands import refused

from undiffuse.cli import main

PIXELS = ["--features", "pixels"]
SETS = ["--real", "digits", "--fake", "digits"]
IN_P = ["--real", "p", "--fake", "p", *PIXELS]


def metrics(folder: str = "evaluation") -> dict[str, Any]:
    return json.loads(Path(folder, "metrics.json").read_text())


def values(written: dict[str, Any]) -> dict[str, float]:
    return {value["metric"]: value["value"] for value in written["metrics"]}


@pytest.fixture
def mixed_sizes(tmp_path: Path) -> Path:
    for i in range(50):
        side = 10 + i % 3
        making.save(tmp_path / "mixed" / "one" / f"{i}.png", making.noise(i, side, side))
    return tmp_path / "mixed"


@pytest.mark.parametrize("command", ["measure", "evaluate"])
def test_two_sets_are_measured(command: str, mixed_sizes: Path, capsys: pytest.CaptureFixture) -> None:
    np.save("fake.npy", np.random.default_rng(0).integers(0, 200, (50, 12, 12, 3), np.uint8))
    main([command, "--real", "mixed", "--fake", "fake.npy", *PIXELS])
    written, printed = metrics(), capsys.readouterr().out
    reference, samples = written["protocol"]["references"][0], written["protocol"]["samples"]
    assert (reference["size"], reference["resized"]) == ("12x12", True)
    assert (samples["data"], samples["images"]) == ("fake", 50)
    assert all(np.isfinite(value) for value in values(written).values())
    assert "fewer than 2,048" in printed
    assert f"Open {Path('evaluation/report.html').absolute()}" in printed


def test_a_set_against_itself_has_no_distance(mixed_sizes: Path) -> None:
    main(["measure", "--real", "mixed", "--fake", "mixed", *PIXELS])
    same = values(metrics())
    assert abs(same["FD-pixels"]) < 1e-3
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)


def test_both_forms_write_the_same(mixed_sizes: Path) -> None:
    words = ["--real", "digits", "--fake", "mixed", *PIXELS, "--size", "8", "--fit", "stretch", "--count", "30"]
    words += ["--real-count", "100", "--batch", "7", "--strict"]
    for command in ("measure", "evaluate"):
        main([command, *words, "--out", command])
    new, old = metrics("measure"), metrics("evaluate")
    assert values(new) == values(old)
    assert new["protocol"]["samples"] == old["protocol"]["samples"]


@pytest.mark.parametrize("command", ["measure", "evaluate"])
def test_each_set_has_a_split_of_its_own(command: str, tmp_path: Path) -> None:
    for split, count in (("train", 24), ("test", 12)):
        making.save_noise(tmp_path / "photos" / split, *(f"{i}.png" for i in range(count)))
    words = [command, "--real", "photos", "--fake", "photos", *PIXELS]
    main([*words, "--split", "test", "--fake-split", "train"])
    reference, samples = metrics()["protocol"]["references"][0], metrics()["protocol"]["samples"]
    assert (reference["split"], reference["images"]) == ("test", 12)
    assert (samples["split"], samples["images"]) == ("train", 24)


@pytest.mark.parametrize("command", ["measure", "evaluate"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--real", "nowhere", "--fake", "digits"], "no data at"),
        ([*SETS, "--count", "none"], "--count none is not a count"),
        ([*SETS, "--batch", "0"], "--batch 0 is too small"),
        ([*SETS, "--size", "8x8x8"], "--size 8x8x8 is not a size"),
        ([*SETS, *PIXELS, "--weights", "x.pth"], "leave out --weights"),
        ([*SETS, "--weights", "x.pth"], "no weights file at"),
        ([*SETS, *PIXELS, "--count", "1"], "give at least 2"),
        ([*IN_P, "--out", "p/out"], "lies among the images in"),
        ([*IN_P, "--out", "p/1.png"], "lies among the images in"),
        ([*IN_P, "--out", "file/out"], "cannot be created (Not a directory)"),
    ],
)
def test_a_wrong_command_is_answered(command: str, words: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    making.save_noise(Path("p"), "1.png", "2.png")
    Path("file").touch()
    if "--count" in words and "1" in words:  # Only known after the folder for the results is made.
        Path("evaluation").mkdir()
    assert says in refused(capsys, command, *words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fake", "digits"], "--real and --fake together"),
        (["x", *SETS], "either a RUN"),
        ([*SETS, "--steps", "5"], "--steps does nothing with --real and --fake"),
        ([*SETS, "--set", "eta=1"], "--set does nothing with --real and --fake"),
        ([*SETS, "--likelihood", "1"], "--likelihood does nothing with --real and --fake"),
    ],
)
def test_the_old_form_takes_no_options_for_a_run(words: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    assert says in refused(capsys, "evaluate", *words)
