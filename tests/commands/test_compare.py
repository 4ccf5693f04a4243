"""undiffuse compare: runs and samplers in one table."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import forking
from helpers.commands import refused

from undiffuse.cli import main

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
    assert len(addresses) == 6  # The icon, the curves, a strip for each.
    assert all(address.startswith("data:") for address in addresses)
    assert f"{min(distances):.3g}"[:3] in page
    capsys.readouterr()
    main(["compare", "one", *PIXELS, "--count", "12", "--samplers", "heun", "--steps", "2"])
    assert "12 of 12 images are there already" in capsys.readouterr().out
    alone = json.loads(Path("runs/comparison/comparison.json").read_text())
    assert alone["entries"][0]["metrics"] == found["entries"][1]["metrics"]


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
    assert together["entries"] == alone["entries"]


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
    ],
)
def test_a_wrong_command_is_answered(capsys: pytest.CaptureFixture, words: list[str], says: str) -> None:
    assert says in refused(capsys, "compare", *words)
