"""undiffuse evaluate: the samples of a run."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import forking, making
from helpers.commands import refused

from undiffuse.cli import main
from undiffuse.evaluation import bits_per_dim

TINY = ["--images", "128", "--set", "network.channels=8", "network.groups=4", "network.patch=1"]
PIXELS = ["--features", "pixels"]


def train(*words: str) -> None:
    main(["train", "--out", "runs/tiny", *words, *TINY])


def metrics(folder: str = "runs/tiny/evaluation") -> dict[str, Any]:
    return json.loads(Path(folder, "metrics.json").read_text())


def values(written: dict[str, Any], split: str | None = None) -> dict[str, float]:
    return {value["metric"]: value["value"] for value in written["metrics"] if split in (None, value["split"])}


def test_a_run_is_sampled_measured_and_reported(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    main(["evaluate", *PIXELS, "--count", "60", "--steps", "3", "--sampler", "euler", "--guidance", "1.5"])
    written, printed = metrics(), capsys.readouterr().out
    assert set(values(written)) >= {"FD-pixels", "KD-pixels", "precision", "recall", "AuthPct"}
    assert not any(name.startswith(("FID", "KID")) for name in values(written))
    assert all(np.isfinite(value) for value in values(written).values())
    assert written["version"] == 2
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
    assert "FD-pixels" in printed
    report = Path("runs/tiny/evaluation/report.html").read_text()
    addresses = re.findall(r'(?:src|href)="(.*?)"', report)
    assert len(addresses) == 5  # The icon, two grids, the sheet, the distances.
    assert all(address.startswith("data:") and len(address) > 5 for address in addresses)


def test_sampling_continues_where_it_stopped(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    words = ["evaluate", "tiny", *PIXELS, "--count", "12", "--steps", "2"]
    main(words)
    samples = sorted(Path("runs/tiny/evaluation/samples").rglob("*.png"))
    assert len(samples) == 12
    first, before = metrics(), {path: path.stat().st_mtime_ns for path in samples}
    samples[5].unlink()
    capsys.readouterr()
    main(words)
    assert "11 of 12 images are there already" in capsys.readouterr().out
    assert [path for path in samples if path.stat().st_mtime_ns != before[path]] == [samples[5]]
    assert values(metrics()) == values(first)
    assert metrics()["protocol"]["references"][0]["features_from_cache"] is True


def test_samples_with_other_settings_are_not_in_the_way() -> None:
    train("--size", "8")
    words = ["evaluate", "tiny", *PIXELS, "--count", "6", "--steps", "2", "--sampler", "ddim", "--real-count", "40"]
    main(words)
    main([*words, "--set", "eta=0.5"])
    assert metrics()["protocol"]["eta"] == 0.5
    assert len(list(Path("runs/tiny/evaluation/samples").iterdir())) == 2


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    """Images with a train and a test split, in two classes."""
    for split, count in (("train", 24), ("test", 12)):
        for i in range(count):
            name = ("cats", "<b>dogs</b>")[i % 2].replace("/", "-")
            making.save(tmp_path / "photos" / split / name / f"{i}.png", making.noise(i + 100 * len(split), 8, 8))
    return tmp_path / "photos"


def test_train_and_test_split_are_both_measured(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits_per_dim, "CONTINUOUS_STEPS", 25)
    train("--data", str(split_folder), "--preset", "digits", "--size", "8")
    main(["evaluate", *PIXELS, "--count", "20", "--steps", "2", "--likelihood", "1"])
    written = metrics()
    assert [(r["split"], r["images"]) for r in written["protocol"]["references"]] == [("train", 24), ("test", 12)]
    assert values(written, "train")["FD-pixels"] != values(written, "test")["FD-pixels"]
    assert written["memorization"][0]["control"] == "held-out real images"
    bits = written["bits_per_dim"]
    assert {name: value["split"] for name, value in bits.items()} == {"VLB": "test", "probability flow": "test"}
    # A network that has learned next to nothing: near the eight bits of pixels that are uniform noise.
    assert 7 < bits["probability flow"]["bits_per_dim"] < 14
    report = Path("runs/tiny/evaluation/report.html").read_text()
    assert "&lt;b&gt;dogs" in report
    assert "<b>dogs" not in report


def test_another_split_is_measured_alone(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits_per_dim, "CONTINUOUS_STEPS", 25)
    train("--data", str(split_folder), "--preset", "digits", "--size", "8")
    main(["evaluate", *PIXELS, "--count", "20", "--steps", "2", "--split", "test", "--out", "elsewhere"])
    only = metrics("elsewhere")
    assert {value["split"] for value in only["metrics"]} == {"test"}
    assert only["memorization"] == []
    assert "copies of the others would be missed" in only["skipped"]["memorization"]
    assert "copies of the others would be missed" in Path("elsewhere/report.html").read_text()
    # The bits/dim of split all would be those of training images too.
    main(["evaluate", *PIXELS, "--count", "20", "--steps", "2", "--split", "all", "--likelihood", "1"])
    assert {value["split"] for value in metrics()["bits_per_dim"].values()} == {"test"}


def test_memorization_needs_all_training_images(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    words = ["evaluate", "tiny", *PIXELS, "--count", "12", "--steps", "2"]
    for count, spaces in (("40", 0), ("5k", 1)):
        main([*words, "--real-count", count])
        assert len(metrics()["memorization"]) == spaces
    assert "--real-count 5,000: there are only digits, split all, 1,797 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--real", "nowhere"], "no data at"),
        (["--count", "none"], "--count none is not a count"),
        (["--real-count", "0"], "--real-count 0 is not a count"),
        (["--batch", "0"], "--batch 0 is too small"),
        (["--likelihood", "-1"], "--likelihood -1 is too small"),
        (["no-such-run", *PIXELS], "no run at"),
        (["--size", "8"], "--size does nothing with a RUN"),
        (["--fit", "pad"], "--fit does nothing with a RUN"),
        (["--fake-split", "test"], "--fake-split does nothing with a RUN"),
    ],
)
def test_a_wrong_command_is_answered(capsys: pytest.CaptureFixture, words: list[str], says: str) -> None:
    assert says in refused(capsys, "evaluate", *words)


def test_results_do_not_go_among_the_runs_images(split_folder: Path, capsys: pytest.CaptureFixture) -> None:
    train("--data", str(split_folder), "--preset", "digits", "--size", "8")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", *PIXELS, "--out", str(split_folder / "out")])
    assert "lies among the images in" in capsys.readouterr().err


FEW_STEPS = """
from undiffuse.cli import main
from undiffuse.evaluation import bits_per_dim

bits_per_dim.CONTINUOUS_STEPS = 10
main({words})
"""


def test_processes_share_an_evaluation(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits_per_dim, "CONTINUOUS_STEPS", 10)
    train("--size", "8", "--data", str(split_folder), "--preset", "digits")
    words = ["evaluate", "runs/tiny", *PIXELS, "--count", "9", "--steps", "2", "--batch", "1", "--likelihood", "2"]
    first, second = forking.together(2, exec, FEW_STEPS.format(words=words), {})
    assert first.count("Open ") == 1
    assert second == ""
    together = metrics()
    shutil.rmtree("runs/tiny/evaluation")
    monkeypatch.setenv("UNDIFFUSE_CACHE", "other-cache")
    main(words)
    alone = metrics()
    assert values(alone) == values(together)
    for name in ("memorization", "bits_per_dim"):
        assert alone[name] == together[name]
    assert alone["bits_per_dim"]["VLB"]["images"] == 2


def test_an_imported_run_needs_real_images(capsys: pytest.CaptureFixture) -> None:
    train("--size", "8")
    config = json.loads(Path("runs/tiny/config.json").read_text())
    Path("runs/tiny/config.json").write_text(json.dumps(config | {"data_content": ""}))  # As import leaves it.
    words = ["evaluate", "tiny", *PIXELS, "--count", "12", "--steps", "2"]
    with pytest.raises(SystemExit):
        main(words)
    assert "holds an imported model, whose training images are not known" in capsys.readouterr().err
    making.save_noise(Path("p"), *(f"{i}.png" for i in range(20)))
    main([*words, "--real", "p"])
    written = metrics()
    (reference,) = written["protocol"]["references"]
    assert (reference["data"], reference["images"], reference["size"], reference["resized"]) == ("p", 20, "8x8", True)
    assert written["protocol"]["sampler"] == config["sampling"]["sampler"]
    assert written["memorization"] == []
    assert "is not known" in written["skipped"]["memorization"]
