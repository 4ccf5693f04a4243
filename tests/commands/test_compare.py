"""undiffuse compare: runs and samplers in one table."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import forking
from helpers.commands import refused

from undiffuse.cli import main
from undiffuse.config import SamplingConfig
from undiffuse.evaluation import measured
from undiffuse.evaluation.metrics import Measurement
from undiffuse.runs.run import open_run
from undiffuse.sampling.tuned import TunedSchedule, save_tuned

TINY = ["--size", "8", "--images", "128", "--set", "network.channels=8", "network.groups=4", "network.patch=1"]
PIXELS = ["--features", "pixels", "--real-count", "60"]


def train(name: str, *words: str) -> None:
    main(["train", "--out", f"runs/{name}", *words, *TINY])


def test_runs_samplers_and_steps_are_compared_at_equal_n(capsys: pytest.CaptureFixture) -> None:
    train("one")
    shutil.copytree("runs/one", "runs/two")
    main(["compare", "one", "two", *PIXELS, "--count", "12", "--samplers", "euler", "heun", "--steps", "2"])
    found = json.loads(Path("runs/comparison/comparison.json").read_text())
    nfe = [(c["run"], c["sampler"], c["steps"], c["nfe"]) for c in found["entries"]]
    # The digits preset uses guidance, which doubles the NFE.
    expected = [("euler", 2, 4), ("heun", 2, 6)]
    assert nfe == [(run, *way) for run in ("one", "two") for way in expected]
    counts = {(f["n_real"], f["n_fake"]) for c in found["entries"] for f in c["metrics"]}
    assert counts == {(60, 12)}
    distances = [f["value"] for c in found["entries"] for f in c["metrics"] if f["metric"] == "FD-pixels"]
    assert len(set(distances)) == 2  # The runs hold the same model.
    page = Path("runs/comparison/comparison.html").read_text()
    addresses = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(addresses) == 7  # The icon, curves against NFE and seconds, a strip for each.
    assert all(address.startswith("data:") for address in addresses)
    assert f"{min(distances):.3g}"[:3] in page
    capsys.readouterr()
    main(["compare", "one", *PIXELS, "--count", "12", "--samplers", "heun", "--steps", "2"])
    assert "12 of 12 images are there already" in capsys.readouterr().out
    alone = json.loads(Path("runs/comparison/comparison.json").read_text())
    assert alone["entries"][0]["metrics"] == found["entries"][1]["metrics"]


def test_a_student_takes_its_own_sampler_in_the_same_plot(capsys: pytest.CaptureFixture) -> None:
    train("teacher")
    main(["distill", "runs/teacher", "--images", "64", "--out", "runs/student"])
    words = ["--count", "6", "--guidance", "1", "--samplers", "ipndm", "euler", "--steps", "1,2"]
    capsys.readouterr()
    main(["compare", "teacher", "student", *PIXELS, *words])
    found = json.loads(Path("runs/comparison/comparison.json").read_text())
    nfe = [(entry["run"], entry["sampler"], entry["nfe"]) for entry in found["entries"]]
    teachers = [("teacher", sampler, steps) for sampler in ("ipndm", "euler") for steps in (1, 2)]
    assert nfe == [*teachers, ("student", "consistency", 1), ("student", "consistency", 2)]
    assert Path("runs/comparison/comparison.html").read_text().count("student, consistency, ") >= 2


def test_processes_share_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    train("one")
    words = ["compare", "one", *PIXELS, "--count", "12", "--samplers", "euler", "heun", "--steps", "2", "--batch", "4"]
    first, second = forking.together(2, main, [*words, "--out", "two"])
    assert first.count("Open ") == 1
    assert second == ""
    shutil.rmtree("runs/one/evaluation")
    monkeypatch.setenv("UNDIFFUSE_CACHE", "other-cache")
    main([*words, "--out", "alone"])
    together, alone = (json.loads(Path(name, "comparison.json").read_text()) for name in ("two", "alone"))
    assert [timing.pop("processes") for timing in timings(together)] == [2, 2]
    assert [timing.pop("processes") for timing in timings(alone)] == [1, 1]
    for entry in (*together["entries"], *alone["entries"]):
        del entry["seconds_per_image"], entry["repeats"][0]["timing"]
    assert together["entries"] == alone["entries"]


def timings(comparison: dict) -> list[dict]:
    return [repeat["timing"] for entry in comparison["entries"] for repeat in entry["repeats"]]


def test_a_comparison_with_repeats_goes_on_where_it_was_interrupted(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("one")
    words = [
        "compare",
        "one",
        *PIXELS,
        "--count",
        "6",
        "--samplers",
        "euler",
        "heun",
        "--steps",
        "1,2",
        "--repeats",
        "2",
    ]
    main([*words, "--out", "whole"])
    whole = json.loads(Path("whole/comparison.json").read_text())
    assert [entry["nfe"] for entry in whole["entries"]] == [2, 4, 2, 6]  # Heun's last step is Euler's.
    assert {entry["seeds"] for entry in whole["entries"]} == {"0 to 11"}
    assert {repeat["seeds"] for entry in whole["entries"] for repeat in entry["repeats"]} == {"0 to 5", "6 to 11"}
    for entry in whole["entries"]:
        (mean, *_), halves = entry["metrics"], [repeat["metrics"][0]["value"] for repeat in entry["repeats"]]
        assert mean["value"] == pytest.approx(sum(halves) / 2)
        assert mean["spread"] == pytest.approx(abs(halves[0] - halves[1]) / 2**0.5)
        seconds = [repeat["timing"]["seconds_per_image"] for repeat in entry["repeats"]]
        assert min(seconds) > 0
        assert entry["seconds_per_image"] == pytest.approx(sum(seconds) / 2)

    for sample in Path("runs/one/evaluation/samples").glob("heun-2-*/00000[67].png"):
        sample.unlink()
    monkeypatch.setattr(measured, "compute_metrics", lambda real, fake, metrics: Measurement(real, fake, ()))
    capsys.readouterr()
    main([*words, "--out", "again"])
    assert "46 of 48 images are there already" in capsys.readouterr().out
    again = json.loads(Path("again/comparison.json").read_text())
    assert again["entries"] == whole["entries"]  # The same samples have the same metrics, which are kept.


def test_seconds_are_known_only_of_samples_that_were_made_in_one_go() -> None:
    train("one")
    words = ["compare", "one", *PIXELS, "--samplers", "euler", "--steps", "2"]
    main([*words, "--count", "6"])
    main([*words, "--count", "12"])
    (entry,) = json.loads(Path("runs/comparison/comparison.json").read_text())["entries"]
    assert entry["seconds_per_image"] is None
    page = Path("runs/comparison/comparison.html").read_text()
    assert "The seconds of 1 entry are not known: not all samples were made in one go." in page
    main([*words, "--count", "4"])
    (entry,) = json.loads(Path("runs/comparison/comparison.json").read_text())["entries"]
    assert entry["seconds_per_image"] > 0


def test_what_does_not_fit_a_run_is_left_out_with_the_reason(capsys: pytest.CaptureFixture) -> None:
    discrete = ["diffusion.parametrization=eps", "diffusion.sigma_sampler=discrete_uniform"]
    main(["train", "--out", "runs/one", *TINY, *discrete])
    compare = ["compare", "one", *PIXELS, "--count", "4", "--samplers"]
    main([*compare, "ddim", "--steps", "2,1001"])
    assert "one, ddim, 1,001 steps is left out: 1001 steps do not fit" in capsys.readouterr().out
    found = json.loads(Path("runs/comparison/comparison.json").read_text())
    assert [entry["steps"] for entry in found["entries"]] == [2]
    assert [each["title"] for each in found["left_out"]] == ["one, ddim, 1,001 steps"]
    assert "1001 steps do not fit" in Path("runs/comparison/comparison.html").read_text()
    assert "1001 steps do not fit" in refused(capsys, *compare, "ddim", "--steps", "1001", "1002")


def test_noise_schedules_are_compared(capsys: pytest.CaptureFixture) -> None:
    train("one")
    run = open_run(Path("runs/one"))
    checkpoint = run.last_good()
    assert checkpoint is not None
    levels = SamplingConfig(sampler="ipndm", steps=2, sigmas=(50.0, 1.0))
    save_tuned(run, TunedSchedule(levels, checkpoint.digest("ema"), checkpoint.images, "pixel error", 0.1, 0.2, 32))
    words = ["compare", "one", *PIXELS, "--count", "4", "--guidance", "1", "--samplers", "ipndm"]
    main([*words, "--steps", "2,3,4", "--sigmas", "karras", "tuned"])
    found = json.loads(Path("runs/comparison/comparison.json").read_text())
    assert [(entry["steps"], entry["sigmas"]) for entry in found["entries"]] == [
        (2, "karras"),
        (3, "karras"),
        (4, "karras"),
        (2, [50.0, 1.0]),
    ]
    assert [each["title"] for each in found["left_out"]] == ["one, ipndm, tuned, 3, 4 steps"]
    page = Path("runs/comparison/comparison.html").read_text()
    assert page.count("one, ipndm, tuned, 2 steps") >= 1
    assert ">karras</td>" in page
    assert ">tuned</td>" in page
    main([*words, "--steps", "2"])
    assert "one, ipndm, tuned, 2 steps: " in capsys.readouterr().out  # Used without being asked for, and said.
    assert "euler cannot have tuned noise levels" in refused(
        capsys, *words[:-1], "euler", "--steps", "2,3", "--sigmas", "tuned"
    )
    assert "'cosine' is not among auto, tuned" in refused(capsys, *words, "--sigmas", "cosine")


def test_runs_of_one_name_are_distinguished_and_taken_once() -> None:
    train("one")
    shutil.copytree("runs/one", "elsewhere/one")
    main(
        ["compare", "one", "runs/one", "elsewhere/one", *PIXELS, "--count", "6", "--samplers", "euler", "--steps", "2"]
    )
    assert len(json.loads(Path("runs/comparison/comparison.json").read_text())["entries"]) == 2
    page = Path("runs/comparison/comparison.html").read_text()
    assert page.count(">runs/one</td>") == page.count(">elsewhere/one</td>") == 1


@pytest.mark.parametrize(("setting", "value"), [("fit", "stretch"), ("channels", 3)])
def test_runs_that_read_images_differently_are_not_compared(
    capsys: pytest.CaptureFixture, setting: str, value: object
) -> None:
    train("one")
    config = json.loads(Path("runs/one/config.json").read_text())
    Path("runs/two").mkdir()
    Path("runs/two/config.json").write_text(json.dumps(config | {"data": config["data"] | {setting: value}}))
    with pytest.raises(SystemExit):
        main(["compare", "one", "two", *PIXELS])
    assert "another size, fit or number of channels" in capsys.readouterr().err


def test_runs_of_other_images_are_not_compared(capsys: pytest.CaptureFixture) -> None:
    train("one")
    config = json.loads(Path("runs/one/config.json").read_text())
    Path("runs/two").mkdir()
    Path("runs/two/config.json").write_text(json.dumps(config | {"data_content": "other"}))
    with pytest.raises(SystemExit) as end:
        main(["compare", "one", "two", *PIXELS])
    assert end.value.code == 2
    assert "were trained on other images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["no-such-run"], "no run at"),
        (["--count", "many"], "--count many is not a count"),
        (["--batch", "0"], "--batch 0 is too small"),
        (["--repeats", "0"], "--repeats 0 is too small"),
        (["--steps", "4,x"], "--steps x is not a number of steps"),
        (["--steps", "0"], "--steps 0 is not a number of steps"),
    ],
)
def test_a_wrong_command_is_answered(capsys: pytest.CaptureFixture, words: list[str], says: str) -> None:
    assert says in refused(capsys, "compare", *words)
