"""`undiffuse import` and `undiffuse.import_model`: a model that was trained elsewhere becomes a run like any other."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.foreign import save_pipeline
from PIL import Image

from undiffuse.api.exchange import import_model
from undiffuse.cli import main
from undiffuse.config import Config
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.find import find_run
from undiffuse.runs.run import open_run

ORACLES = Path(os.environ.get("UNDIFFUSE_ORACLES", Path(__file__).parents[1] / "oracles")).absolute()
IMPROVED = str(ORACLES / "openai_unet_0.safetensors")
"""Weights of Improved DDPM for 16x16 images of ten classes, with a learned variance."""


def imported(*words: str) -> Config:
    main(["import", *words, "--out", "runs/one"])
    return open_run(find_run("one")).config


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    """The error of a refused import: exit code 2, one sentence, nothing made."""
    with pytest.raises(SystemExit) as end:
        main(["import", *words])
    assert end.value.code == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert not Path("runs").exists()
    return message


def test_improved_ddpm_weights_default_to_its_cifar10_models(capsys: pytest.CaptureFixture) -> None:
    config = imported(IMPROVED, "--size", "16")
    output = capsys.readouterr().out
    assert "1,2" in output
    assert "parameters, 16x16 RGB, 10 classes" in output
    assert "cosine schedule, 4,000 timesteps, learned variance" in output
    assert "ancestral in 250 steps, by default" in output
    assert "undiffuse sample runs/one" in output
    assert isinstance(config.network, UNetConfig)
    assert (config.network.heads, config.network.time_scale) == (4, 0.25)
    assert (config.diffusion.parametrization, config.diffusion.objective) == ("eps", "hybrid")
    assert (config.sampling.sampler, config.sampling.steps, config.sampling.clip) == ("ancestral", 250, True)
    assert (config.preset, config.data.data) == ("imported", IMPROVED)
    assert config.training.label_dropout == 0


@pytest.mark.parametrize("num_timesteps", ["--num-timesteps", "--chain-length"])
def test_options_give_what_weights_do_not_state(num_timesteps: str) -> None:
    words = ["--size", "32x16", "--heads", "2", "--schedule", "linear", num_timesteps, "100"]
    config = imported(IMPROVED, *words, "--parametrization", "x0", "--raw-timesteps")
    assert isinstance(config.network, UNetConfig)
    assert (config.network.size, config.network.heads, config.network.time_scale) == ((32, 16), 2, 1.0)
    assert (config.diffusion.schedule, config.diffusion.num_timesteps) == ("linear", 100)
    assert (config.diffusion.parametrization, config.sampling.steps) == ("x0", 100)


def test_variance_is_an_option_where_it_is_not_learned() -> None:
    plain = str(ORACLES / "openai_unet_1.safetensors")
    config = imported(plain, "--size", "16", "--heads", "1", "--variance", "small")
    assert (config.sampling.variance, config.diffusion.objective) == ("small", "simple")
    main(["import", plain, "--size", "16", "--heads", "1", "--out", "runs/two"])
    assert open_run(find_run("two")).config.sampling.variance == "large"


def test_an_imported_run_is_sampled_like_any_other(capsys: pytest.CaptureFixture) -> None:
    imported(IMPROVED, "--size", "16", "--num-timesteps", "20")
    main(["sample", "one", "--count", "2", "--sampler", "ancestral", "--steps", "4", "--out", "out"])
    images = [np.asarray(Image.open(f"out/00000{i}.png")) for i in range(2)]
    assert images[0].shape == (16, 16, 3)
    assert (images[0] != images[1]).any()
    capsys.readouterr()
    for words in (["--guidance", "2"], ["--label", "none"]):  # It was never trained without labels.
        with pytest.raises(SystemExit) as end:
            main(["sample", "one", *words])
        assert end.value.code == 2


def test_a_diffusers_folder_becomes_a_run_of_its_name(capsys: pytest.CaptureFixture) -> None:
    save_pipeline(Path("theirs-1.5"))
    main(["import", "theirs-1.5"])
    config = open_run(Path("runs/theirs-1.5")).config
    assert config.data.data == str(Path("theirs-1.5").absolute())
    assert "undiffuse sample runs/theirs-1.5" in capsys.readouterr().out
    main(["import", IMPROVED, "--size", "16"])
    assert open_run(Path("runs/openai_unet_0")).config.network.size == (16, 16)


def test_an_imported_run_is_not_trained_further(capsys: pytest.CaptureFixture) -> None:
    imported(IMPROVED, "--size", "16")
    before = sorted(str(path) for path in Path("runs").rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["train", "--size", "16", "--images", "100", "--out", "runs/one"])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert str(Path("runs/one").absolute()) in message
    assert "another --out" in message
    assert sorted(str(path) for path in Path("runs").rglob("*")) == before


def test_an_existing_run_is_not_overwritten(capsys: pytest.CaptureFixture) -> None:
    imported(IMPROVED, "--size", "16")
    capsys.readouterr()
    for source in (IMPROVED, "nowhere"):  # Refused before anything is opened or downloaded.
        with pytest.raises(SystemExit):
            main(["import", source, "--size", "32", "--out", "runs/one"])
        assert f"{Path('runs/one').absolute()} already exists" in capsys.readouterr().err
    assert open_run(Path("runs/one")).config.network.size == (16, 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "There is nothing at"),
        (["nowhere.pt"], "There is no file"),
        (["./no/such/folder"], "There is nothing at"),
        (["empty"], "is not a diffusers model"),
        (["theirs", "--heads", "4"], "states itself how it was trained"),
        (["theirs", "--raw-timesteps"], "states itself how it was trained"),
        (["theirs/unet/diffusion_pytorch_model.safetensors"], "give the folder with both"),
        (["theirs/unet/config.json"], "is not a weights file"),
        (["strange.pt"], 'weights of an unknown network ("layer.weight" and more)'),
        (["network.pkl"], "is a pickle"),
        ([IMPROVED, "--size", "18"], "size 18x18 does not fit"),
        ([IMPROVED, "--size", "big"], "--size big is not a size"),
        ([IMPROVED, "--size", "16", "--heads", "5"], "5 heads"),
        ([IMPROVED, "--size", "16", "--heads", "0"], "--heads 0 is too small"),
        ([IMPROVED, "--size", "16", "--chain-length", "0"], "--num-timesteps 0 is too small"),
        ([IMPROVED, "--size", "16", "--num-timesteps", "5", "--schedule", "linear"], "num_timesteps 5 does not fit"),
        ([IMPROVED, "--size", "16", "--variance", "small"], "has a learned variance"),
    ],
)
def test_a_wrong_command_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    Path("empty").mkdir()
    save_pipeline(Path("theirs"))
    torch.save({"layer.weight": torch.ones(2)}, "strange.pt")
    Path("network.pkl").write_bytes(pickle.dumps(1))
    assert message in refused(capsys, *words)


def test_the_function_returns_the_run_and_is_quiet(capsys: pytest.CaptureFixture) -> None:
    run = import_model(IMPROVED, size=16, num_timesteps=20)
    assert run.folder == Path("runs/openai_unet_0")
    assert run.config == open_run(run.folder).config
    assert run.config.diffusion.num_timesteps == 20
    assert import_model(Path(IMPROVED), out="runs/wide", size=(16, 32)).config.network.size == (16, 32)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="--heads 0 is too small"):
        import_model(IMPROVED, heads=0)
