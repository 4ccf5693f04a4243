"""undiffuse evaluate: a run, and any two sets of images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import making

from undiffuse.cli import main
from undiffuse.evaluation import bits_per_dim as bits

TINY = ["--images", "128", "--set", "network.channels=8", "network.groups=4", "network.patch=1"]
PIXELS = ["--features", "pixels"]


def train(*words: str) -> None:
    main(["train", "--out", "runs/tiny", *words, *TINY])


def metrics(folder: str = "runs/tiny/evaluation") -> dict[str, Any]:
    return json.loads(Path(folder, "metrics.json").read_text())


def values(written: dict[str, Any], split: str | None = None) -> dict[str, float]:
    return {f["metric"]: f["value"] for f in written["metrics"] if split in (None, f["split"])}


def test_a_run_is_sampled_measured_and_reported(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    main(["evaluate", *PIXELS, "--count", "60", "--steps", "3", "--sampler", "euler", "--guidance", "1.5"])
    written, said = metrics(), capsys.readouterr().out
    assert set(values(written)) >= {"FD-pixels", "KD-pixels", "precision", "recall", "AuthPct"}
    assert not any(name.startswith(("FID", "KID")) for name in values(written))
    assert all(np.isfinite(value) for value in values(written).values())
    assert written["comparable_with_published"] is False
    assert "60 samples" in written["why"]
    assert written["warnings"]
    protocol = written["protocol"]
    expected = {"sampler": "euler", "steps": 3, "guidance": 1.5, "ema": True, "seeds": "0 to 59", "nfe": 6}
    assert {name: protocol[name] for name in expected} == expected
    assert protocol["versions"]["torch"]
    assert protocol["references"][0]["images"] == 1797
    assert len(written["precision_by_class"]) == 10
    assert written["memorization"][0]["control"] == "training images, each to the next"
    assert "FD-pixels" in said
    report = Path("runs/tiny/evaluation/report.html").read_text()
    addresses = re.findall(r'(?:src|href)="(.*?)"', report)
    assert len(addresses) == 5  # The icon, two grids, the sheet, the distances.
    assert all(address.startswith("data:") and len(address) > 5 for address in addresses)


def test_sampling_goes_on_where_it_stopped(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    words = ["evaluate", "tiny", *PIXELS, "--count", "12", "--steps", "2"]
    main(words)
    made = sorted(Path("runs/tiny/evaluation/samples").rglob("*.png"))
    assert len(made) == 12
    first, before = metrics(), {path: path.stat().st_mtime_ns for path in made}
    made[5].unlink()
    capsys.readouterr()
    main(words)
    assert "11 of 12 images are there already" in capsys.readouterr().out
    assert [path for path in made if path.stat().st_mtime_ns != before[path]] == [made[5]]
    assert values(metrics()) == values(first)
    assert metrics()["protocol"]["references"][0]["features_from_cache"] is True


def test_samples_of_other_settings_are_not_in_the_way() -> None:
    train("--size", "8")
    words = ["evaluate", "tiny", *PIXELS, "--count", "6", "--steps", "2", "--sampler", "ddim", "--real-count", "40"]
    main(words)
    main([*words, "--set", "eta=0.5"])
    assert metrics()["protocol"]["eta"] == 0.5
    assert len(list(Path("runs/tiny/evaluation/samples").iterdir())) == 2


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    for split, count in (("train", 24), ("test", 12)):
        for i in range(count):
            of_class = ("cats", "<b>dogs</b>")[i % 2].replace("/", "-")
            making.save(tmp_path / "photos" / split / of_class / f"{i}.png", making.noise(i + 100 * len(split), 8, 8))
    return tmp_path / "photos"


def test_train_and_test_stand_beside_one_another_and_bits_are_of_the_held_out(
    split_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bits, "CONTINUOUS_STEPS", 25)
    train("--data", str(split_folder), "--preset", "digits", "--size", "8")
    main(["evaluate", *PIXELS, "--count", "20", "--steps", "2", "--likelihood", "1"])
    written = metrics()
    assert [(r["split"], r["images"]) for r in written["protocol"]["references"]] == [("train", 24), ("test", 12)]
    assert values(written, "train")["FD-pixels"] != values(written, "test")["FD-pixels"]
    assert written["memorization"][0]["control"] == "held-out real images"
    found = written["bits_per_dim"]
    assert {found[name]["split"] for name in ("variational bound", "probability flow")} == {"test"}
    # A network that has learned next to nothing: near the eight bits of pixels that are even noise.
    assert 7 < found["probability flow"]["bits_per_dim"] < 14
    report = Path("runs/tiny/evaluation/report.html").read_text()
    assert "&lt;b&gt;dogs" in report
    assert "<b>dogs" not in report
    main(["evaluate", *PIXELS, "--count", "20", "--steps", "2", "--split", "test", "--out", "elsewhere"])
    only = metrics("elsewhere")
    assert {f["split"] for f in only["metrics"]} == {"test"}
    assert only["memorization"] == []
    assert "copies of the others would be missed" in Path("elsewhere/report.html").read_text()
    # Bits of split all would be those of training images too.
    main(["evaluate", *PIXELS, "--count", "20", "--steps", "2", "--split", "all", "--likelihood", "1"])
    assert {value["split"] for value in metrics()["bits_per_dim"].values()} == {"test"}


def test_copies_are_not_looked_for_among_a_part_of_the_training_images(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    words = ["evaluate", "tiny", *PIXELS, "--count", "12", "--steps", "2"]
    for count, spaces in (("40", 0), ("5k", 1)):
        main([*words, "--real-count", count])
        assert len(metrics()["memorization"]) == spaces
    assert "--real-count 5,000: there are only digits, split all, 1,797 images" in capsys.readouterr().out


def test_the_report_is_there_before_the_bits_are(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train("--data", str(split_folder), "--preset", "digits", "--size", "8")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bits, "bits_per_dim", stopped)
    with pytest.raises(SystemExit):
        main(["evaluate", *PIXELS, "--count", "20", "--steps", "2", "--likelihood", "1"])
    assert "this page was written before" in metrics()["bits_per_dim"]["skipped"]


def test_any_two_sets_are_measured_and_too_few_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for i in range(50):
        side = 10 + i % 3  # Mixed sizes.
        making.save(tmp_path / "mixed" / "one" / f"{i}.png", making.noise(i, side, side))
    np.save(tmp_path / "fake.npy", np.random.default_rng(0).integers(0, 200, (50, 12, 12, 3), np.uint8))
    main(["evaluate", "--real", "mixed", "--fake", "fake.npy", *PIXELS])
    written = metrics("evaluation")
    assert written["protocol"]["references"][0]["size"] == "12x12"
    assert written["protocol"]["references"][0]["resized"] is True
    assert written["protocol"]["samples"]["data"] == "fake"
    assert written["protocol"]["samples"]["images"] == 50
    assert "fewer than 2,048" in capsys.readouterr().out
    assert all(np.isfinite(value) for value in values(written).values())
    main(["evaluate", "--real", "mixed", "--fake", "mixed", *PIXELS])
    same = values(metrics("evaluation"))
    assert abs(same["FD-pixels"]) < 1e-3
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fake", "digits"], "--real and --fake together"),
        (["x", "--real", "digits", "--fake", "digits"], "either a RUN"),
        (["--real", "nowhere"], "no data at"),
        (["--real", "nowhere", "--fake", "digits"], "no data at"),
        (["--count", "none"], "is no count"),
        (["--batch", "0"], "--batch 0 is too few"),
        (["no-such-run", *PIXELS], "no run at"),
        ([*PIXELS, "--weights", "x.pth", "--real", "digits", "--fake", "digits"], "leave --weights out"),
        (["--weights", "x.pth", "--real", "digits", "--fake", "digits"], "no weights file at"),
        (["--real", "digits", "--fake", "digits", *PIXELS, "--count", "1"], "give at least 2"),
        (["--real", "digits", "--fake", "digits", "--steps", "5"], "--steps does nothing with --real and --fake"),
        (["--real", "digits", "--fake", "digits", "--set", "eta=1"], "--set does nothing with --real and --fake"),
        (["--size", "8"], "--size does nothing with a RUN"),
        (["--real", "p", "--fake", "p", *PIXELS, "--out", "p/out"], "lies among the images in"),
        (["--real", "p", "--fake", "p", *PIXELS, "--out", "p/1.png"], "lies among the images in"),
        (["--real", "p", "--fake", "p", *PIXELS, "--out", "file/out"], "cannot be made (Not a directory)"),
    ],
)
def test_a_wrong_command_is_answered(capsys: pytest.CaptureFixture, words: list[str], says: str) -> None:
    making.save_noise(Path("p"), "1.png", "2.png")
    Path("file").touch()
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *words])
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_processes_share_an_evaluation(tmp_path: Path) -> None:
    train("--size", "8")
    words = ["evaluate", "runs/tiny", *PIXELS, "--count", "9", "--steps", "2", "--real-count", "40"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "undiffuse", *words]
    environment = {**os.environ, "UNDIFFUSE_CACHE": str(tmp_path / "other-cache")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    together = metrics()
    main(words)
    assert values(metrics()) == pytest.approx(values(together))


def test_each_side_has_a_split_of_its_own(split_folder: Path) -> None:
    words = ["evaluate", "--real", str(split_folder), "--fake", str(split_folder), *PIXELS]
    main([*words, "--split", "test", "--fake-split", "train"])
    protocol = metrics("evaluation")["protocol"]
    assert (protocol["references"][0]["split"], protocol["references"][0]["images"]) == ("test", 12)
    assert (protocol["samples"]["split"], protocol["samples"]["images"]) == ("train", 24)


def test_an_imported_run_is_compared_with_images_that_are_named(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    config = json.loads(Path("runs/tiny/config.json").read_text())
    Path("runs/tiny/config.json").write_text(json.dumps(config | {"data_content": ""}))  # As import leaves it.
    words = ["evaluate", "tiny", *PIXELS, "--count", "12", "--steps", "2"]
    with pytest.raises(SystemExit):
        main(words)
    assert "holds an imported model, and nobody knows its images: name some with" in capsys.readouterr().err
    making.save_noise(Path("p"), *(f"{i}.png" for i in range(20)))
    main([*words, "--real", "p"])
    written = metrics()
    (reference,) = written["protocol"]["references"]
    assert (reference["data"], reference["images"], reference["size"], reference["resized"]) == ("p", 20, "8x8", True)
    assert written["protocol"]["sampler"] == config["sampling"]["sampler"]
    assert written["memorization"] == []
    assert "is not known" in Path("runs/tiny/evaluation/report.html").read_text()
