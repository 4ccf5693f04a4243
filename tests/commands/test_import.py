"""undiffuse import: what was trained elsewhere becomes a run like any other."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.foreign import save_pipeline
from PIL import Image

from undiffuse.cli import main
from undiffuse.config import Config
from undiffuse.runs.find import find_run
from undiffuse.runs.run import open_run

ORACLES = Path(os.environ.get("UNDIFFUSE_ORACLES", Path(__file__).parents[1] / "oracles")).absolute()
IMPROVED = str(ORACLES / "openai_unet_0.safetensors")
"""Weights of Improved DDPM for 16x16 images of ten classes, with a learned variance."""


def imported(*words: str) -> Config:
    main(["import", *words, "--out", "runs/one"])
    return open_run(find_run("one")).config


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    """What a refused import says: exit code 2, one sentence, nothing made."""
    with pytest.raises(SystemExit) as end:
        main(["import", *words])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert not Path("runs").exists()
    return said


def test_weights_of_improved_ddpm_are_taken_for_its_cifar10_models(capsys: pytest.CaptureFixture) -> None:
    config = imported(IMPROVED, "--size", "16")
    said = capsys.readouterr().out
    assert "1,2" in said
    assert "parameters, 16x16 RGB, 10 classes" in said
    assert "cosine schedule of 4,000 levels, learned variance" in said
    assert "undiffuse sample runs/one" in said
    assert (config.network.heads, config.network.time_scale) == (4, 0.25)
    assert (config.diffusion.parametrization, config.diffusion.objective) == ("eps", "hybrid")
    assert (config.sampling.sampler, config.sampling.steps, config.sampling.clip) == ("ancestral", 250, True)
    assert (config.preset, config.data.data) == ("imported", IMPROVED)
    assert config.training.label_dropout == 0


def test_what_weights_do_not_say_can_be_said() -> None:
    words = ["--size", "32x16", "--heads", "2", "--schedule", "linear", "--chain-length", "100"]
    config = imported(IMPROVED, *words, "--parametrization", "x0", "--raw-timesteps")
    assert (config.network.size, config.network.heads, config.network.time_scale) == ((32, 16), 2, 1.0)
    assert (config.diffusion.schedule, config.diffusion.num_timesteps) == ("linear", 100)
    assert (config.diffusion.parametrization, config.sampling.steps) == ("x0", 100)


def test_weights_without_a_learned_variance_have_the_one_that_is_said() -> None:
    plain = str(ORACLES / "openai_unet_1.safetensors")
    config = imported(plain, "--size", "16", "--heads", "1", "--variance", "small")
    assert (config.sampling.variance, config.diffusion.objective) == ("small", "simple")
    main(["import", plain, "--size", "16", "--heads", "1", "--out", "runs/two"])
    assert open_run(find_run("two")).config.sampling.variance == "large"


def test_an_imported_run_is_sampled_like_any_other(capsys: pytest.CaptureFixture) -> None:
    imported(IMPROVED, "--size", "16", "--chain-length", "20")
    main(["sample", "one", "--count", "2", "--sampler", "ancestral", "--steps", "4", "--out", "out"])
    images = [np.asarray(Image.open(f"out/00000{i}.png")) for i in range(2)]
    assert images[0].shape == (16, 16, 3)
    assert (images[0] != images[1]).any()
    capsys.readouterr()
    for words in (["--guidance", "2"], ["--label", "none"]):  # It never saw what is there without a class.
        with pytest.raises(SystemExit) as end:
            main(["sample", "one", *words])
        assert end.value.code == 2


def test_a_folder_of_diffusers_becomes_a_run_named_like_it(capsys: pytest.CaptureFixture) -> None:
    save_pipeline(Path("theirs-1.5"))
    main(["import", "theirs-1.5"])
    config = open_run(Path("runs/theirs-1.5")).config
    assert config.data.data == str(Path("theirs-1.5").absolute())
    assert "undiffuse sample runs/theirs-1.5" in capsys.readouterr().out
    main(["import", IMPROVED, "--size", "16"])
    assert open_run(Path("runs/openai_unet_0")).config.network.size == (16, 16)


def test_an_imported_run_is_not_trained_on(capsys: pytest.CaptureFixture) -> None:
    imported(IMPROVED, "--size", "16")
    before = sorted(str(path) for path in Path("runs").rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["train", "--size", "16", "--images", "100", "--out", "runs/one"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert str(Path("runs/one").absolute()) in said
    assert "another --out" in said
    assert sorted(str(path) for path in Path("runs").rglob("*")) == before


def test_what_is_there_is_left_alone(capsys: pytest.CaptureFixture) -> None:
    imported(IMPROVED, "--size", "16")
    capsys.readouterr()
    for source in (IMPROVED, "nowhere"):  # It is said before anything is opened, or downloaded.
        with pytest.raises(SystemExit):
            main(["import", source, "--size", "32", "--out", "runs/one"])
        assert f"{Path('runs/one').absolute()} is there already" in capsys.readouterr().err
    assert open_run(Path("runs/one")).config.network.size == (16, 16)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "There is nothing at"),
        (["nowhere.pt"], "There is no file"),
        (["./no/such/folder"], "There is nothing at"),
        (["empty"], "is no model of diffusers"),
        (["theirs", "--heads", "4"], "says itself how it was made"),
        (["theirs", "--raw-timesteps"], "says itself how it was made"),
        (["theirs/unet/diffusion_pytorch_model.safetensors"], "give the folder with both"),
        (["theirs/unet/config.json"], "is no file of weights"),
        (["strange.pt"], 'weights of another network ("layer.weight" and more)'),
        (["network.pkl"], "is a pickle"),
        ([IMPROVED, "--size", "18"], "size 18x18 does not fit"),
        ([IMPROVED, "--size", "big"], "--size big is no size"),
        ([IMPROVED, "--size", "16", "--heads", "5"], "5 heads"),
        ([IMPROVED, "--size", "16", "--heads", "0"], "--heads 0 is too few"),
        ([IMPROVED, "--size", "16", "--chain-length", "0"], "--chain-length 0 is too few"),
        ([IMPROVED, "--size", "16", "--chain-length", "5", "--schedule", "linear"], "num_timesteps 5 does not fit"),
        ([IMPROVED, "--size", "16", "--variance", "small"], "has a learned variance"),
    ],
)
def test_a_wrong_command_is_answered_in_one_sentence(
    capsys: pytest.CaptureFixture, words: list[str], says: str
) -> None:
    Path("empty").mkdir()
    save_pipeline(Path("theirs"))
    torch.save({"layer.weight": torch.ones(2)}, "strange.pt")
    Path("network.pkl").write_bytes(pickle.dumps(1))
    assert says in refused(capsys, *words)
