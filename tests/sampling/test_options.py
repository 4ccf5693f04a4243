"""How a run is sampled: its own options with those asked for in their place, and the noise levels that follow."""

from dataclasses import replace

import pytest
import torch

from undiffuse.config import SamplingConfig
from undiffuse.diffusion import noise
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.sampling.options import at_few_steps, noise_levels

CONTINUOUS = DiffusionConfig()
DISCRETE = DiffusionConfig(parametrization="v", sigma_sampler="discrete_uniform", schedule="cosine")


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_ddpms_samplers_take_the_discrete_schedule_if_there_is_one(sampler: str) -> None:
    sampling = SamplingConfig(sampler=sampler, steps=25)
    assert torch.equal(noise_levels(DISCRETE, sampling), DISCRETE.discrete_sigmas(25))
    assert torch.equal(noise_levels(CONTINUOUS, sampling), noise.karras_sigmas(25, 0.002, 80.0))


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m", "lms", "ipndm"])
def test_the_other_samplers_take_karras_sigmas(sampler: str) -> None:
    sampling = SamplingConfig(sampler=sampler, steps=25)
    assert torch.equal(noise_levels(CONTINUOUS, sampling), noise.karras_sigmas(25, *CONTINUOUS.sigma_range()))
    low, noisiest = DISCRETE.sigma_range()
    levels = noise_levels(DISCRETE, sampling)
    assert levels[0] == noisiest
    assert torch.equal(levels[1:], noise.karras_sigmas(24, low, DISCRETE.sigma_max)), "one step down to sigma_max"


def test_any_sampler_takes_the_sigmas_that_are_named() -> None:
    for sampler in ("ancestral", "ddim", "heun"):
        sampling = SamplingConfig(sampler=sampler, steps=25)
        assert torch.equal(noise_levels(DISCRETE, replace(sampling, sigmas="karras")), DISCRETE.karras_sigmas(25))
        assert torch.equal(noise_levels(DISCRETE, replace(sampling, sigmas="log_snr")), DISCRETE.log_snr_sigmas(25))
        assert torch.equal(noise_levels(DISCRETE, replace(sampling, sigmas="discrete")), DISCRETE.discrete_sigmas(25))


def test_few_steps_bring_the_sampler_that_is_best_at_few() -> None:
    for sampler in ("ancestral", "ddim"):
        sampling = SamplingConfig(sampler=sampler, steps=99, guidance=2.0, clip=True)
        assert at_few_steps(sampling) == replace(sampling, sampler="ipndm")
        assert at_few_steps(replace(sampling, steps=100)) == replace(sampling, steps=100)
    assert at_few_steps(SamplingConfig(sampler="heun", steps=5)) == SamplingConfig(sampler="heun", steps=5)
