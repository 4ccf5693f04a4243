"""Strides for `ancestral`, found with a run's images and checked on others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.gaussians import gaussian
from helpers.making import opened

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.store import Store
from undiffuse.diffusion.denoiser import without_variance
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.evaluation.bits_per_dim import bits_per_dim
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import create_run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import noise_levels, sampling_config
from undiffuse.tuning.bound import tune_stride
from undiffuse.utils.world import World

DISCRETE = DiffusionConfig(parametrization="eps", sigma_sampler="discrete_uniform", schedule="cosine", num_timesteps=40)
ANCESTRAL = SamplingConfig(sampler="ancestral", steps=7)


@pytest.fixture
def store() -> Store:
    return opened("digits", size=(8, 8), channels=1)


@pytest.fixture
def model(preset_config: Callable[[str], Config], small_network: UNetConfig, random_unet: Callable) -> Model:
    """A run with a discrete schedule, and the denoiser of Gaussian images as wide as digits."""
    network = replace(small_network, classes=0)
    config = replace(preset_config("small"), network=network, diffusion=DISCRETE, class_names=())
    run = create_run(Path("runs/one"), config)
    weights = random_unet(network).state_dict()
    run.save(500, {"network": weights, "ema": weights}, {}, keep=1)
    return replace(load_model(run), predict=without_variance(gaussian(-0.4, 0.7)))


def test_the_stride_found_has_a_smaller_bound_on_other_images(model: Model, store: Store) -> None:
    schedule, again = tune_stride(model, ANCESTRAL, store, Path("tuning"), minutes=0.001)
    sigmas = schedule.sampling.sigmas
    assert not again
    assert (schedule.measure, len(sigmas)) == ("bits/dim", 7)
    assert schedule.error < 0.98 * schedule.default_error
    assert set(sigmas) <= set(DISCRETE.discrete_schedule().tolist())
    assert sigmas[0] == float(DISCRETE.discrete_schedule()[-1]), "the noisiest level"
    assert tune_stride(model, ANCESTRAL, store, Path("tuning"), minutes=1) == (schedule, True)
    levels = noise_levels(model.diffusion, replace(ANCESTRAL, sigmas=sigmas))
    assert levels.tolist() == [*sigmas, 0.0]


def test_the_bound_over_the_samplers_own_levels_is_measured_beside_the_whole(model: Model, store: Store) -> None:
    world = World.alone(torch.device("cpu"))
    whole = bits_per_dim(model, store, 2, 0, 2, world)
    strided = bits_per_dim(model, store, 2, 0, 2, world, ANCESTRAL)
    assert list(strided) == ["VLB", "probability flow", "VLB over 7 steps"]
    assert {name: strided[name] for name in whole} == whole
    assert strided["VLB over 7 steps"]["protocol"]["steps"] == 7
    assert strided["VLB over 7 steps"]["bits_per_dim"] > strided["VLB"]["bits_per_dim"], "fewer steps, a looser bound"
    assert list(bits_per_dim(model, store, 2, 0, 2, world, SamplingConfig())) == list(whole)


def test_runs_and_steps_without_a_stride_are_named(model: Model, store: Store) -> None:
    for steps in (1, 40):
        with pytest.raises(ValueError, match=f"--steps {steps} cannot be tuned: choose 2 to 39"):
            tune_stride(model, replace(ANCESTRAL, steps=steps), store, Path("tuning"), minutes=1)
    continuous = replace(model, config=replace(model.config, diffusion=DiffusionConfig()))
    with pytest.raises(ValueError, match="which this run has not: choose ipndm"):
        tune_stride(continuous, sampling_config(continuous.config, "ancestral", 7), store, Path("tuning"), minutes=1)
