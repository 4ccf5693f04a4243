"""undiffuse explore, from the command line to the page."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.exploring import messy
from helpers.making import encoded, noise, save_noise, write_zip

from undiffuse.api import first_run
from undiffuse.cli import main
from undiffuse.data import building
from undiffuse.exploration import explore
from undiffuse.training import cost


@pytest.fixture(autouse=True)
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_run, "MEASURING_SECONDS", 0.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws and measures nothing: for tests of what is explored."""
    monkeypatch.setattr(explore, "plots", lambda statistics, data: {})
    monkeypatch.setattr(cost, "measure_cost", lambda config, device: cost.Cost(1, 1, 1, 0.01))


def test_digits_are_explored_without_options(capsys: pytest.CaptureFixture) -> None:
    main(["explore"])
    printed = capsys.readouterr().out
    folder = Path("explored/digits").absolute()
    assert printed.splitlines()[0] == f"Everything goes to {folder}"
    assert f"Open {folder / 'report.html'}" in printed
    for text in ("1,797", "10, 174 to 183 images each", "0 exact, 6 near pairs", "undiffuse train --data digits"):
        assert text in printed
    statistics = json.loads((folder / "statistics.json").read_text())
    assert statistics["inventory"]["images"] == 1797
    assert statistics["size"] == [16, 16]  # What train would read.
    assert statistics["suggestion"]["preset"] == "digits"
    assert statistics["suggestion"]["command"] in (folder / "report.html").read_text().replace("</span> <span>", " ")
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "report.html", "statistics.json"]


def test_a_messy_folder_is_explored_and_bad_files_are_named(quick, capsys: pytest.CaptureFixture) -> None:
    main(["explore", "--data", str(messy(Path("p"))), "--out", "out"])
    printed = capsys.readouterr().out
    statistics = json.loads(Path("out/statistics.json").read_text(encoding="utf-8"))
    assert len(statistics["inventory"]["bad_files"]) == 3
    for bad in statistics["inventory"]["bad_files"]:
        assert f"{bad['name']}: {bad['reason']}" in printed


def test_strict_fails_at_a_bad_file(capsys: pytest.CaptureFixture) -> None:
    folder = messy(Path("p"))
    with pytest.raises(SystemExit) as end:
        main(["explore", "--data", str(folder), "--strict", "--out", "out"])
    assert end.value.code == 2
    assert re.search(r"cannot be decoded \(.+\): repair or remove it", capsys.readouterr().err)
    assert list(Path("out").iterdir()) == []


def test_all_splits_are_explored_by_default(quick, capsys: pytest.CaptureFixture) -> None:
    names = [f"{split}/{kind}/{i}.png" for split in ("train", "test") for kind in "ab" for i in range(2)]
    folder = str(save_noise(Path("p"), *names))
    counts = {}
    for split in ("all", "auto", "test"):
        main(["explore", "--data", folder, "--out", split, *(["--split", split] if split != "all" else [])])
        counts[split] = json.loads(Path(split, "statistics.json").read_text())["inventory"]["splits"]
    assert counts == {"all": {"train": 4, "test": 4}, "auto": {"train": 4}, "test": {"test": 4}}
    assert "undiffuse train --data p --split test" in capsys.readouterr().out


def test_an_archive_is_explored_like_a_folder(quick) -> None:
    names = ["train/a/1.png", "train/b/1.png", "test/a/1.png"]
    archive = write_zip(Path("p.zip"), {name: encoded(noise(i, 20, 30 + i)) for i, name in enumerate(names)})
    main(["explore", "--data", str(archive)])
    inventory = json.loads(Path("explored/p/statistics.json").read_text())["inventory"]
    assert inventory["splits"] == {"train": 2, "test": 1}
    assert inventory["sizes"] == {"20x30": 1, "20x31": 1, "20x32": 1}


def test_nothing_is_decoded_twice(quick, monkeypatch: pytest.MonkeyPatch) -> None:
    save_noise(Path("p"), "1.png", "2.png")
    main(["explore", "--data", "p"])
    monkeypatch.setattr(building, "decode", lambda *image: pytest.fail("an image was decoded again"))
    main(["explore", "--data", "p"])


def test_the_data_options_are_those_of_train(quick, capsys: pytest.CaptureFixture) -> None:
    save_noise(Path("p"), "1.png", "2.png")
    main(["explore", "--data", "p", "--size", "16x24", "--fit", "pad", "--channels", "1", "--out", "out"])
    statistics = json.loads(Path("out/statistics.json").read_text())
    assert (statistics["size"], statistics["fit"], statistics["channels"]) == ([16, 24], "pad", 1)
    assert "--channels 1 --size 16x24 --fit pad" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "no data at"),
        (["--size", "big"], "--size big is not a size"),
        (["--out", "taken"], "taken cannot be created (File exists): give --out another folder"),
        (["--out", "taken/below"], "taken/below cannot be created (Not a directory): give --out another folder"),
        (["--data", "p", "--out", "p"], "p lies among the images in"),
        (["--data", "p", "--out", "p/a/../b/out"], "where nothing is written: give --out a folder elsewhere"),
    ],
)
def test_a_wrong_command_gets_one_sentence(capsys: pytest.CaptureFixture, options: list[str], message: str) -> None:
    Path("taken").touch()
    save_noise(Path("p"), "a/1.png")
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(["explore", *options])
    assert sorted(Path().rglob("*")) == before
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1


def test_nothing_is_written_among_the_images(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(save_noise(Path("p"), "a/1.png", "b/1.png"))
    for command in ("explore", "train"):
        with pytest.raises(SystemExit) as end:
            main([command, "--data", ".", "--size", "16"])
        assert end.value.code == 2
        assert "lies among the images" in capsys.readouterr().err
    assert sorted(str(path) for path in Path().rglob("*.*")) == ["a/1.png", "b/1.png"]


def test_epochs_are_those_of_the_split_that_train_uses(quick) -> None:
    names = [f"{split}/{i}.png" for split, n in (("train", 2), ("test", 6)) for i in range(n)]
    save_noise(Path("p"), *names)
    for split, taken in (("all", 2), ("auto", 2), ("test", 6)):
        main(["explore", "--data", "p", "--split", split, "--out", "out"])
        first = json.loads(Path("out/statistics.json").read_text())["suggestion"]
        assert first["epochs"] == pytest.approx(first["total_images"] / taken)


def test_there_is_a_page_without_memory_to_measure(
    quick, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(cost, "measure_cost", full)
    save_noise(Path("p"), "1.png", "2.png")
    main(["explore", "--data", "p", "--out", "out"])
    assert "Out of memory while measuring" in capsys.readouterr().out
    assert json.loads(Path("out/statistics.json").read_text())["suggestion"] is None
    assert Path("out/report.html").exists()
