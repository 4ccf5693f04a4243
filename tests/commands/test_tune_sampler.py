"""undiffuse tune-sampler: from a run to samples that use what it found, and say so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.gaussians import gaussian

import undiffuse as ud
from undiffuse.api import tune
from undiffuse.cli import main
from undiffuse.config import Config
from undiffuse.diffusion.denoiser import without_variance
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs import find
from undiffuse.runs.run import Run, create_run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model


@pytest.fixture(autouse=True)
def run(preset_config: Callable[[str], Config], small_network: UNetConfig, random_unet: Callable) -> Run:
    """runs/one, of random weights."""
    run = create_run(Path("runs/one"), replace(preset_config("small"), network=small_network))
    weights = random_unet(small_network).state_dict()
    run.save(500, {"network": weights, "ema": weights}, {}, keep=1)
    return run


@pytest.fixture
def gaussian_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search sees the exact denoiser of Gaussian images in place of the network, for which tuning helps."""

    def loaded(run: Run) -> Model:
        return replace(load_model(run), predict=without_variance(gaussian(0.3, 0.4)))

    monkeypatch.setattr(tune, "load_model", loaded)


def test_sampling_uses_what_was_found_and_says_so(gaussian_model: None, capsys: pytest.CaptureFixture) -> None:
    main(["sample", "one", "--steps", "3", "--count", "2"])
    main(["tune-sampler", "one", "--steps", "3", "--minutes", "0.000001"])
    out = capsys.readouterr().out
    assert "32 images to search with and as many others to check with" in out
    assert "Tuned 3 ipndm steps: pixel error" in out
    main(["sample", "one", "--steps", "3", "--count", "2"])  # Beside the samples of before.
    assert "Tuned noise levels for 3 ipndm steps: pixel error" in capsys.readouterr().out
    protocols = [json.loads(file.read_text()) for file in Path("runs/one/samples").glob("*/samples.json")]
    before, after = sorted((protocol["sigmas"] for protocol in protocols), key=lambda sigmas: sigmas != "auto")
    kept = json.loads(Path("runs/one/tuned_samplers.json").read_text())["schedules"][0]
    assert (before, after) == ("auto", kept["sampling"]["sigmas"])
    main(["tune-sampler", "one", "--steps", "3"])
    assert "The search was finished before" in capsys.readouterr().out
    edited = ud.edit("one", "vary", image=np.zeros((8, 8, 1), np.uint8), count=1, steps=3, sampler="ipndm", label=1)
    assert edited.gallery.sampling.sigmas == "auto", "an edit starts elsewhere"
    assert ud.load("one").sample(1, steps=3).shape == (1, 8, 8, 1)


def test_what_is_not_better_is_not_kept(monkeypatch: pytest.MonkeyPatch, notices: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(
        "undiffuse.tuning.tune.refined", lambda error, starts, lowest: min(starts, key=error, default=0)
    )
    monkeypatch.setattr("undiffuse.tuning.tune.gits_sigmas", lambda levels, cost, steps, coefficient: (80.0, 0.002))
    tuned = ud.tune_sampler("one", steps=2, minutes=1e-9)
    assert (tuned.is_better, tuned.error) == (False, tuned.default_error)
    assert not tuned.file.exists()
    assert notices.messages[-1].startswith("No better levels were found for 2 ipndm steps")


def test_a_model_of_the_package_is_tuned_in_a_folder_of_ones_own(
    run: Run, gaussian_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "SHIPPED", run.folder.parent.absolute())
    monkeypatch.setattr(find, "RUNS", Path("elsewhere"))
    tuned = ud.tune_sampler("one", steps=2, minutes=1e-9)
    assert tuned.file == Path("elsewhere/shipped/one/tuned_samplers.json")
    assert not (run.folder / "tuning").exists()
    levels = [float(step.sigma) for step in ud.load("one").steps(1, steps=2)]
    assert levels == [tuned.sigmas[1], 0]


def test_a_run_that_cannot_be_written_to_is_named(run: Run) -> None:
    (run.folder / "tuning").write_text("a file in its place")
    with pytest.raises(ValueError, match=r"tuning cannot be written to .*: copy the run"):
        ud.tune_sampler("one", steps=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "1"], "--steps 1"),
        (["--minutes", "0"], "--minutes 0 leaves no time"),
        (["--guidance-interval", "3-1"], "--guidance-interval"),
        (["--steps", "40"], "--steps 40 cannot be tuned: choose 2 to 30"),
    ],
)
def test_options_out_of_range_are_named(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["tune-sampler", "one", *words])
    assert said in capsys.readouterr().err
