"""How a run is sampled: its own options with those asked for in their place, and the noise levels that follow."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion import noise
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.sampling.options import at_few_steps, noise_levels, sampling_config
from undiffuse.utils.parsing import parse_interval

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


def test_noise_levels_can_be_given_themselves(preset_config: Callable[[str], Config]) -> None:
    config = preset_config("small")
    sampling = sampling_config(config, settings=["sigmas=[9, 3, 1]"])
    assert (sampling.sigmas, sampling.steps) == ((9.0, 3.0, 1.0), 3)
    assert noise_levels(config.diffusion, sampling).tolist() == [9, 3, 1, 0]
    with pytest.raises(ValueError, match="3 noise levels do not fit 4 steps: give one for each step"):
        sampling_config(config, steps=4, settings=["sigmas=[9, 3, 1]"])
    own = replace(config, sampling=sampling)
    assert sampling_config(own).sigmas == (9.0, 3.0, 1.0)
    assert sampling_config(own, steps=4).sigmas == "auto", "its own levels are of another number of steps"
    slow = replace(config, sampling=SamplingConfig(sampler="ancestral", steps=1000))
    assert sampling_config(slow, "ipndm", settings=["sigmas=[9, 3, 1]"]).steps == 3


def test_few_steps_bring_the_sampler_that_is_best_at_few() -> None:
    for sampler in ("ancestral", "ddim"):
        sampling = SamplingConfig(sampler=sampler, steps=99, guidance=2.0, clip=True)
        assert at_few_steps(sampling) == replace(sampling, sampler="ipndm")
        assert at_few_steps(replace(sampling, steps=100)) == replace(sampling, steps=100)
    assert at_few_steps(SamplingConfig(sampler="heun", steps=5)) == SamplingConfig(sampler="heun", steps=5)


@pytest.fixture
def always_labeled(preset_config: Callable[[str], Config]) -> Config:
    """A run that never saw an image without its label, with a preset's guidance."""
    config = preset_config("digits")
    assert config.sampling.guidance == 1.5
    return replace(config, training=replace(config.training, label_dropout=0.0))


def test_guidance_that_was_never_learned_is_left_out(always_labeled: Config) -> None:
    assert sampling_config(always_labeled).guidance == 1
    assert sampling_config(always_labeled, guidance=1.0).guidance == 1
    assert sampling_config(always_labeled, guidance=2.0, guide=True).guidance == 2
    with pytest.raises(ValueError, match="always saw the class in training"):
        sampling_config(always_labeled, guidance=2.0)
    with pytest.raises(ValueError, match="always saw the class in training"):
        sampling_config(always_labeled, settings=["guidance=1.2"])


def test_an_interval_needs_something_to_guide_and_a_step_inside(preset_config: Callable[[str], Config]) -> None:
    config = preset_config("digits")
    assert sampling_config(config, guidance_interval=(0.28, 1.6)).guidance_interval == (0.28, 1.6)
    assert sampling_config(config, guidance_interval="1e-1-2").guidance_interval == (0.1, 2.0)
    with pytest.raises(ValueError, match="has none of the 18 noise levels"):
        sampling_config(config, guidance_interval=(100, 200))
    with pytest.raises(ValueError, match="without classes"):
        sampling_config(replace(config, class_names=()), guidance_interval=(0.28, 1.6))
    for wrong in ("0.3", "2-1", "1-inf", "a-b", (2.0, 1.0)):
        with pytest.raises(ValueError, match="is not an interval"):
            parse_interval(wrong)
