"""undiffuse train: what it refuses, its dry run, and that every objective trains to a model that makes images."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import refused
from PIL import Image

from undiffuse.api import train as api_train
from undiffuse.cli import main
from undiffuse.runs.run import open_run
from undiffuse.training import previews

SMALL = ["network.channels=8", "network.groups=4", "network.multipliers=[1]", "network.patch=1"]
SMALL += ["network.attention_resolutions=[]", "training.log_batches=1", "optimizer.warmup_images=0"]

DISCRETE = ["diffusion.sigma_sampler=discrete_uniform", "diffusion.schedule=cosine"]
OBJECTIVES = {
    "eps": ["diffusion.parametrization=eps", "diffusion.sigma_sampler=discrete_uniform"],
    "x0": ["diffusion.parametrization=x0", *DISCRETE],
    "v": ["diffusion.parametrization=v", *DISCRETE],
    "v min_snr": ["diffusion.parametrization=v", "diffusion.weight=min_snr", *DISCRETE],
    "eps edm weight": ["diffusion.parametrization=eps", "diffusion.weight=edm", "diffusion.sigma_sampler=log_normal"],
    "flow": ["diffusion.parametrization=flow", "diffusion.sigma_sampler=logit_normal"],
    "edm": ["diffusion.parametrization=edm", "diffusion.sigma_sampler=log_normal"],
    "eps hybrid": ["diffusion.parametrization=eps", "diffusion.objective=hybrid", *DISCRETE],
    "eps vlb": [
        *("diffusion.parametrization=eps", "diffusion.objective=vlb", *DISCRETE),
        "diffusion.sigma_sampler=loss_second_moment",
    ],
}


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the digits are once they are decoded."""
    return tmp_path_factory.mktemp("decoded")


@pytest.mark.parametrize("settings", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_objective_trains_a_model_that_makes_images(
    settings: list[str], decoded: Path, own_folders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(decoded))
    monkeypatch.setattr(previews, "PREVIEWS", 1)
    budget = ["--size", "8", "--images", "128", "--batch", "32", "--out", "runs/it"]
    main(["train", "--data", "digits", *budget, "--set", *SMALL, *settings])
    run = open_run(Path("runs/it"))
    lines = run.log_lines()
    assert [line["images"] for line in lines] == [32, 64, 96, 128]
    assert all(0 < line["loss"] < 1e6 for line in lines)
    assert lines[-1]["skipped_batches"] == 0
    # The last layer starts at 0: its output channels, for the image or the variance, are not 0 once they have learned.
    weights = run.checkpoints()[0].tensors("network")["output.2.weight"]
    assert len(weights) == (2 if run.config.diffusion.learned_variance else 1)
    assert all(channel.any() for channel in weights)

    main(["sample", "it", "--sampler", "ancestral", "--steps", "5", "--count", "2", "--out", "images"])
    first, second = (np.asarray(Image.open(f"images/{seed:06d}.png")).astype(int) for seed in (0, 1))
    assert first.shape == second.shape == (8, 8)
    assert np.abs(first - second).max() > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "no data at"),
        (["--data", "nowhere.zip"], "no data at"),
        (["--preset", "huge"], "choose digits, small, flowers64, cifar10-ddpm"),
        (["--size", "big"], "--size big is not a size"),
        (["--size", "0"], "--size 0 is not a size"),
        (["--size", "8x8x8"], "--size 8x8x8 is not a size"),
        (["--size", "17"], "choose height and width that are multiples of 4, for example 16x16"),
        (["--size", "9999"], "4096"),
        (["--images", "many"], "--images many is not a count"),
        (["--images", "-5"], "--images -5 is not a count"),
        (["--images", "1.5"], "--images 1.5 is not a count"),
        (["--checkpoint-images", "often"], "--checkpoint-images often is not a count"),
        (["--images", "1k", "--minutes", "1"], "either --images or --minutes"),
        (["--minutes", "0"], "training.total_minutes"),
        (["--batch", "0"], "training.batch"),
        (["--keep", "0"], "--keep 0 is too small: give at least 1"),
        (["--split", "val"], "digits has no split val"),
        (["--set", "network.depth=3"], "--set network.depth=3"),
        (["--set", "network.channels=wide"], "network.channels"),
        (["--set", "seed=3"], "--set seed=3"),
        (["--set", "network.classes=3"], "use --unconditional instead"),
        (["--set", "data.fit=pad"], "use the options for data instead"),
        (["--set", "optimizer.learning_rate=-1"], "optimizer.learning_rate"),
        (["--set", "network.dropout=1.5"], "network.dropout"),
        (["--set", "training.log_batches=0"], "training.log_batches"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(
    capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    assert message in refused(capsys, "train", *words)


@pytest.mark.parametrize(
    "words", [["--size", "17"], ["--batch", "0"], ["--minutes", "0"], ["--set", "network.depth=3"]], ids=" ".join
)
def test_settings_that_fit_no_images_are_refused_first(
    words: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_train, "open_store", lambda *options: pytest.fail("images were opened"))
    refused(capsys, "train", *words)


def test_a_run_folder_among_the_images_is_refused(capsys: pytest.CaptureFixture) -> None:
    Path("photos").mkdir()
    Image.new("RGB", (16, 16), "red").save("photos/red.png")
    message = refused(capsys, "train", "--data", "photos", "--out", "photos/run", "--images", "100")
    assert "photos/run lies among the images" in message


@pytest.mark.parametrize("words", [["--data", "nowhere"], ["--preset", "huge"], ["--size", "x"]], ids=" ".join)
def test_a_typing_mistake_is_answered_before_torch_is_loaded(words: list[str]) -> None:
    began = time.monotonic()
    command = [sys.executable, "-m", "undiffuse", "train", *words]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 2
    assert time.monotonic() - began < 5
    code = (
        f"import sys; sys.argv[1:] = {['train', *words]!r}; from undiffuse.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_dry_run_shows_everything_and_makes_no_run(capsys: pytest.CaptureFixture) -> None:
    main(["train", "--dry-run", "--images", "1k"])
    output = capsys.readouterr().out
    for words in ("optimizer.learning_rate = ", "1,698,628 parameters", "memory", "images/s", "runs/digits-16x16"):
        assert words in output
    assert "for about" not in output
    assert not Path("runs").exists()


def test_a_dry_run_of_minutes_estimates_the_images(capsys: pytest.CaptureFixture) -> None:
    main(["train", "--dry-run", "--minutes", "2", "--set", *SMALL])
    assert "time     2 minutes, for about " in capsys.readouterr().out


def test_the_end_says_where_everything_is_and_what_is_next(capsys: pytest.CaptureFixture) -> None:
    main(["train", "--size", "8", "--images", "64", "--batch", "32", "--out", "runs/it", "--set", *SMALL])
    output = capsys.readouterr().out
    for words in ("1,797 images, 8x8 gray, 10 classes, split all", "batch 32, 64 images", "Done: /"):
        assert words in output
    assert "undiffuse sample runs/it\n" in output
    assert "undiffuse evaluate runs/it\n" in output
