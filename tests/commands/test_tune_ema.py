"""undiffuse tune-ema: from the checkpoints of a training to a page and a run for each length."""

import json
from pathlib import Path

import pytest

import undiffuse as ud
from undiffuse.cli import main

TINY = [
    "--size",
    "8",
    "--set",
    "network.channels=8",
    "network.groups=4",
    "network.patch=1",
    "training.batch=32",
    "sampling.guidance=1",
]
FAST = ["--features", "pixels", "--real-count", "40", "--count", "8", "--steps", "2"]


def train(name: str, images: int = 640, every: int = 64, keep: int = 9) -> None:
    budget = ["--images", str(images), "--checkpoint-images", str(every), "--keep", str(keep)]
    main(["train", "--data", "digits", "--out", f"runs/{name}", *budget, *TINY])


def test_each_length_is_a_run_and_all_are_compared(capsys: pytest.CaptureFixture) -> None:
    train("one")
    main(["tune-ema", "one", "--lengths", "0.05,0.08", "0.1", *FAST])
    out = capsys.readouterr().out
    found = json.loads(Path("runs/one-ema/comparison.json").read_text())
    lengths = [(Path(entry["run"]).name, entry["ema_length"]) for entry in found["entries"]]
    assert lengths == [(f"one-ema-{length:g}", length) for length in (0.05, 0.0629, 0.08, 0.1)]
    assert "ema_halflife_images" not in found["entries"][0], "they have no half-life"
    distances = [metric["value"] for entry in found["entries"] for metric in entry["metrics"][:1]]
    best = lengths[distances.index(min(distances))][0]
    assert f"Sample with it: undiffuse sample runs/one-ema/{best}" in out.replace("\n", "")
    page = Path("runs/one-ema/comparison.html").read_text()
    assert "Against the length of the EMA" in page
    assert "Against the number of function evaluations" not in page, "it is the same for all"
    main(["tune-ema", "one", "--lengths", "0.05", "0.08", "0.1", *FAST])
    assert "32 of 32 images are there already" in capsys.readouterr().out
    assert ud.load(f"runs/one-ema/{best}").sample(1, steps=1).shape == (1, 8, 8, 1)
    with pytest.raises(SystemExit):
        main(["train", "--data", "digits", "--out", f"runs/one-ema/{best}", "--images", "700", *TINY])
    assert "holds only EMA weights, without what training would need to go on" in capsys.readouterr().err


def test_too_few_checkpoints_are_named_with_what_to_do(capsys: pytest.CaptureFixture) -> None:
    train("few", images=192, keep=1)
    with pytest.raises(SystemExit):
        main(["tune-ema", "few", "--lengths", "0.15", *FAST])
    out, err = capsys.readouterr()
    said = err.replace("\n", " ")
    assert "An EMA of length 0.15 is left out" in out.replace("\n", " ")
    assert (
        "cannot be combined to EMAs of these lengths: choose --lengths nearer to 0.0629, or train with --keep" in said
    )


def test_the_length_as_trained_is_a_run_too_and_not_twice() -> None:
    train("one", images=64, keep=1)
    tuned = ud.tune_ema("one", lengths=[0.063], features="pixels", real_count=40, count=4, steps=1)
    assert [run.name for run in tuned.runs] == ["one-ema-0.0629"]
    assert tuned.best.name == "one-ema-0.0629"


@pytest.mark.parametrize("length", ["0", "0.3", "nan", "long", "-0.1"])
def test_lengths_that_no_ema_has_are_named(length: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["tune-ema", "one", f"--lengths={length}"])
    assert f"--lengths {length} is not the length of an EMA" in capsys.readouterr().err
