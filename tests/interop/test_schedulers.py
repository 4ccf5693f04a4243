"""Diffusers' schedulers: the same noise levels and steps, and what undiffuse lacks is refused by name."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from helpers.foreign import DDIMScheduler, DDPMScheduler, random_unet2d

from undiffuse.config import SamplingConfig
from undiffuse.diffusion import noise, reverse, samplers
from undiffuse.diffusion.denoiser import clipped, predictor
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.sampler_table import VarianceName
from undiffuse.interop.schedulers import SchedulerSettings, diffusion_of, settings_of
from undiffuse.interop.settings import settings_dict

WHERE = Path("scheduler_config.json")


def read(
    class_name: str = "DDPMScheduler", learned_variance: bool = False, **settings: Any
) -> tuple[DiffusionConfig, SamplingConfig]:
    return diffusion_of(SchedulerSettings(**settings), class_name, learned_variance, WHERE)


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
def test_settings_and_defaults_are_the_librarys(scheduler: type) -> None:
    ours = {field.name: field.default for field in fields(SchedulerSettings)}
    theirs = inspect.signature(scheduler.__init__).parameters
    for name in theirs.keys() - {"self"}:
        assert ours[name] == theirs[name].default, name


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("length", [50, 1000, 4000])
def test_an_exported_scheduler_has_our_betas_and_is_read_again(
    schedule: Literal["linear", "cosine"], length: int
) -> None:
    diffusion = DiffusionConfig(
        parametrization="v",
        sigma_sampler="discrete_uniform",
        schedule=schedule,
        num_timesteps=length,
        objective="simple",
    )
    sampling = SamplingConfig(sampler="ancestral", steps=length, variance="large", clip=True)
    settings = settings_dict(settings_of(diffusion, sampling, WHERE), without=("set_alpha_to_one",))
    theirs = DDPMScheduler(**settings)
    betas = {"linear": noise.linear_betas, "cosine": noise.cosine_betas}[schedule](length)
    torch.testing.assert_close(theirs.betas.double(), betas, rtol=1e-6, atol=1e-8)
    assert read(**settings) == (diffusion, sampling)
    # Betas listed one by one are compared as numbers.
    assert read(num_train_timesteps=length, trained_betas=tuple(theirs.betas.tolist()))[0].schedule == schedule


@pytest.mark.parametrize(
    ("variance_type", "variance"),
    [("fixed_small", "small"), ("fixed_small_log", "small"), ("fixed_large", "large"), ("fixed_large_log", "large")],
)
def test_a_fixed_variance_is_read_as_it_is_sampled(variance_type: str, variance: str) -> None:
    """The two in logarithms are the same variances."""
    assert read(variance_type=variance_type)[1].variance == variance


def test_a_ddim_scheduler_is_sampled_as_by_its_pipeline() -> None:
    _, sampling = read("DDIMScheduler")
    assert (sampling.sampler, sampling.steps, sampling.eta) == ("ddim", 50, 0.0)
    short = read("DDIMScheduler", num_train_timesteps=30, beta_schedule="squaredcos_cap_v2")
    assert short[1].steps == 30


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize("clip", [False, True])
def test_ancestral_sampling_is_theirs_step_by_step(prediction: str, variance: str, clip: bool) -> None:
    length = 8
    network = random_unet2d(out_channels=2 if variance == "learned_range" else 1)
    theirs = DDPMScheduler(
        num_train_timesteps=length,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        variance_type=variance,
        clip_sample=clip,
    )
    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = start
    with torch.no_grad():
        for t in range(length - 1, -1, -1):
            x = theirs.step(network(x, t).sample, t, x, generator=generator, return_dict=False)[0]

    diffusion, sampling = diffusion_of(
        SchedulerSettings(**{name: v for name, v in theirs.config.items() if not name.startswith("_")}),
        "DDPMScheduler",
        variance == "learned_range",
        WHERE,
    )
    variances = {"small": reverse.small, "large": reverse.large, "learned": reverse.learned}
    predict = predictor(lambda x, c_noise, label: network(x, c_noise).sample, diffusion.make_parametrization())
    generator = torch.Generator().manual_seed(1)
    sigmas = diffusion.discrete_sigmas(length)
    steps = samplers.ancestral(
        clipped(predict) if sampling.clip else predict,
        samplers.starting_noise(start, sigmas[0]),
        sigmas,
        noise=lambda: torch.randn(2, 1, 8, 8, generator=generator),
        variance=variances[sampling.variance],
    )
    with torch.no_grad():
        *_, last = steps
    scale = x.abs().max()
    torch.testing.assert_close(last.x.float() / scale, x / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_type": "flow"}, 'prediction_type "flow"'),
        ({"predict_epsilon": False}, "predict_epsilon False"),
        ({"thresholding": True}, "thresholding True"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr True"),
        ({"clip_sample_range": 2.0}, "clip_sample_range 2.0"),
        ({"variance_type": "learned"}, 'variance_type "learned"'),
        ({"beta_schedule": "x\x1b" * 100}, "beta_schedule .{80}[.]{3}, which"),
        ({"variance_type": "learned_range"}, "returns no variance"),
        ({"variance_type": "fixed_small", "learned_variance": True}, "returns twice the channels"),
        ({"class_name": "DDIMScheduler", "learned_variance": True}, "needs a DDPMScheduler"),
        ({"beta_schedule": "scaled_linear"}, 'beta_schedule "scaled_linear"'),
        ({"beta_schedule": "sigmoid"}, 'beta_schedule "sigmoid"'),
        ({"beta_start": 0.00085, "beta_end": 0.012}, "1000 betas from 0.00085 to 0.012"),
        ({"beta_end": 0.0201}, "betas from 0.0001 to 0.0201"),
        ({"beta_end": float("nan")}, "betas from nan to nan"),
        ({"num_train_timesteps": 500}, "500 betas from 0.0001 to 0.02"),
        ({"trained_betas": (0.1, 0.2)}, "2 betas from 0.1 to 0.2"),
        ({"num_train_timesteps": 0}, "num_train_timesteps 0"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps 1000000000000"),
        ({"num_train_timesteps": 10, "beta_start": 0.01, "beta_end": 2.0}, "num_timesteps 10 does not fit"),
    ],
)
def test_an_unsupported_setting_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        read(**settings)
    assert str(WHERE.absolute()) in str(refusal.value)


def test_a_clip_range_is_ignored_without_clipping() -> None:
    assert not read(clip_sample=False, clip_sample_range=2.0)[1].clip


@pytest.mark.parametrize("parametrization", ["flow", "edm"])
def test_a_parametrization_that_theirs_lack_is_refused(parametrization: Literal["flow", "edm"]) -> None:
    diffusion = DiffusionConfig(parametrization=parametrization, sigma_sampler="discrete_uniform")
    with pytest.raises(ValueError, match=f"has the parametrization {parametrization}"):
        settings_of(diffusion, SamplingConfig(), WHERE)


@pytest.mark.parametrize("sigma_sampler", ["log_normal", "logit_normal"])
def test_continuous_noise_levels_are_refused(sigma_sampler: Literal["log_normal", "logit_normal"]) -> None:
    with pytest.raises(ValueError, match=f"on continuous noise levels \\({sigma_sampler}\\)"):
        settings_of(DiffusionConfig(parametrization="eps", sigma_sampler=sigma_sampler), SamplingConfig(), WHERE)


@pytest.mark.parametrize(
    ("objective", "variance", "theirs"),
    [
        ("simple", "small", "fixed_small"),
        ("simple", "auto", "fixed_small"),
        ("simple", "large", "fixed_large"),
        ("hybrid", "auto", "learned_range"),
        ("vlb", "learned", "learned_range"),
        # diffusers cannot read a network that returns a variance without using it.
        ("hybrid", "large", "learned_range"),
    ],
)
def test_variance_type_of_each_objective_and_variance(
    objective: Literal["simple", "hybrid", "vlb"], variance: VarianceName, theirs: str
) -> None:
    diffusion = DiffusionConfig(parametrization="eps", sigma_sampler="loss_second_moment", objective=objective)
    assert settings_of(diffusion, SamplingConfig(variance=variance), WHERE).variance_type == theirs
