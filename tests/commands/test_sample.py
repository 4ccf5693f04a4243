"""undiffuse sample: the same seed, the same picture, and only what is missing is made."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from undiffuse.cli import main

TINY = ["--size", "8", "--images", "2k", "--out", "runs/tiny"]
TINY += ["--set", "network.channels=16", "network.groups=4", "network.patch=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/tiny in it, trained once for all tests here."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.environ["UNDIFFUSE_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    main(["train", *TINY])
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def in_its_folder(trained: Path, monkeypatch: pytest.MonkeyPatch, own_folders: None) -> None:
    monkeypatch.chdir(trained)


def pixels(folder: str, seed: int) -> np.ndarray:
    return np.asarray(Image.open(Path(folder) / f"{seed:06d}.png")).astype(int)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ancestral"])
def test_a_seed_is_a_picture_whatever_the_batch(sampler: str, tmp_path: Path) -> None:
    how = ["sample", "tiny", "--sampler", sampler, "--steps", "6"]
    main([*how, "--count", "8", "--batch", "8", "--out", str(tmp_path / "eight")])
    main([*how, "--count", "8", "--batch", "3", "--out", str(tmp_path / "three")])
    main([*how, "--count", "1", "--seed", "5", "--out", str(tmp_path / "alone")])
    for seed in range(8):
        assert np.abs(pixels(str(tmp_path / "eight"), seed) - pixels(str(tmp_path / "three"), seed)).max() <= 1
    assert np.abs(pixels(str(tmp_path / "eight"), 5) - pixels(str(tmp_path / "alone"), 5)).max() <= 1
    # And seeds differ from each other.
    assert np.abs(pixels(str(tmp_path / "eight"), 0) - pixels(str(tmp_path / "eight"), 1)).max() > 1


def test_only_missing_pictures_are_made(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["sample", "tiny", "--steps", "4", "--count", "6", "--out", str(tmp_path / "out")]
    main(words)
    kept = tmp_path / "out" / "000002.png"
    kept.write_bytes(b"kept as it is")
    lost = tmp_path / "out" / "000004.png"
    before = lost.read_bytes()
    lost.unlink()
    kept_content = kept.read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit):  # The grid cannot read the picture that we spoiled, and says which.
        main(words)
    said = capsys.readouterr()
    assert "5 of 6 pictures are there already" in said.out
    assert kept.read_bytes() == kept_content
    assert lost.read_bytes() == before


def test_samples_made_otherwise_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "out")
    main(["sample", "tiny", "--steps", "4", "--count", "2", "--out", out])
    with pytest.raises(SystemExit) as end:
        main(["sample", "tiny", "--steps", "5", "--count", "2", "--out", out])
    assert end.value.code == 2
    assert "made with steps 4" in capsys.readouterr().err


def test_the_folder_says_what_made_the_pictures(tmp_path: Path) -> None:
    main(["sample", "tiny", "--steps", "3", "--count", "4", "--film", "--label", "3", "--out", str(tmp_path / "out")])
    said = json.loads((tmp_path / "out" / "samples.json").read_text())
    expected = {"sampler": "heun", "steps": 3, "label": 3, "weights": "average", "run": "tiny"}
    assert {name: said[name] for name in expected} == expected
    with Image.open(tmp_path / "out" / "film.gif") as film:
        assert film.n_frames == 3  # ty: ignore[missing-attribute]
    assert Image.open(tmp_path / "out" / "grid.png").mode == "L"
    assert (tmp_path / "out" / "film.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--label", "eleven"], "no such class"),
        (["--label", "10"], "no such class"),
        (["--count", "0"], "--count 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--steps", "0"], "at least 1"),
    ],
)
def test_what_the_model_does_not_have_is_refused(capsys: pytest.CaptureFixture, words: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sample", "tiny", *words])
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_pictures_of_another_model_of_the_same_name_are_not_taken_for_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for seed in ("0", "1"):
        words = ["--size", "8", "--images", "128", "--seed", seed, "--out", str(tmp_path / seed / "twin"), *TINY[6:]]
        main(["train", *words])
    out = ["--count", "1", "--steps", "2", "--out", str(tmp_path / "out")]
    main(["sample", str(tmp_path / "0" / "twin"), *out])
    with pytest.raises(SystemExit):
        main(["sample", str(tmp_path / "1" / "twin"), *out])
    assert "made with weights_sha256" in capsys.readouterr().err


def test_guidance_without_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = str(tmp_path / "plain")
    main(["train", "--size", "8", "--images", "128", "--unconditional", "--out", run, *TINY[6:]])
    main(["sample", run, "--count", "1", "--steps", "2"])
    with pytest.raises(SystemExit) as end:
        main(["sample", run, "--guidance", "2"])
    assert end.value.code == 2
    assert "without classes" in capsys.readouterr().err


def test_labels_and_guidance_change_the_picture(tmp_path: Path) -> None:
    for name, words in {
        "three": ["--label", "3"],
        "four": ["--label", "4"],
        "none": ["--label", "none"],
        "strong": ["--label", "3", "--guidance", "4"],
    }.items():
        main(["sample", "tiny", "--steps", "4", "--count", "1", "--out", str(tmp_path / name), *words])
    made = [pixels(str(tmp_path / name), 0) for name in ("three", "four", "none", "strong")]
    assert all(np.abs(a - b).max() > 0 for i, a in enumerate(made) for b in made[:i])
