"""Diffusers' schedulers: the noise schedule, what the network predicts, and how it is sampled."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.noise import cosine_betas, linear_betas
from undiffuse.diffusion.recipe import MAX_TIMESTEPS, DiffusionConfig
from undiffuse.interop.settings import reason, unsupported

PREDICTIONS: dict[str, Literal["eps", "x0", "v"]] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES: dict[str, Literal["small", "large", "learned"]] = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}
DDIM_ONLY = ("set_alpha_to_one",)
"""Settings that DDPMScheduler does not have."""
DDIM_STEPS = 50
"""DDIMPipeline's default."""


@dataclass(frozen=True)
class SchedulerSettings:
    """DDPMScheduler's and DDIMScheduler's settings, with their names and defaults."""

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    variance_type: str = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    prediction_type: str = "epsilon"
    predict_epsilon: bool | None = None
    thresholding: bool = False
    rescale_betas_zero_snr: bool = False
    # These do not change the model: thresholding's parameters, and which steps their sampler takes.
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True


# Setting, its supported values, and what undiffuse does.
_FIXED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("prediction_type", tuple(PREDICTIONS), f"it has networks that predict {', '.join(PREDICTIONS)}"),
    ("predict_epsilon", (None, True), "it reads prediction_type, which replaced it"),
    ("thresholding", (False,), "it clips to [-1, 1] or not at all"),
    ("rescale_betas_zero_snr", (False,), "all of its noise levels keep some signal"),
)


def diffusion_of(
    settings: SchedulerSettings, class_name: str, learned_variance: bool, where: Path
) -> tuple[DiffusionConfig, SamplingConfig]:
    """Undiffuse's configs for a DDPMScheduler or DDIMScheduler (`class_name`).

    `learned_variance` says that the network returns twice the channels: a variance with its prediction.

    Raises:
        ValueError: undiffuse does not support a setting, which is named.
    """
    for name, supported, behavior in _FIXED:
        if getattr(settings, name) not in supported:
            raise ValueError(unsupported(where, name, getattr(settings, name), behavior))
    if settings.clip_sample and settings.clip_sample_range != 1:
        raise ValueError(unsupported(where, "clip_sample_range", settings.clip_sample_range, "it clips to [-1, 1]"))
    variance = _variance(settings, class_name, learned_variance, where)
    schedule = _schedule(settings, where)
    try:
        diffusion = DiffusionConfig(
            parametrization=PREDICTIONS[settings.prediction_type],
            sigma_sampler="discrete_uniform",
            schedule=schedule,
            num_timesteps=settings.num_train_timesteps,
            objective="hybrid" if learned_variance else "simple",
        )
    except ValueError as error:
        raise ValueError(
            f"{where.absolute()} has a noise schedule that undiffuse does not support: {reason(error)}"
        ) from error
    sampling = SamplingConfig(
        sampler="ancestral", steps=settings.num_train_timesteps, variance=variance, clip=settings.clip_sample
    )
    if class_name == "DDIMScheduler":
        sampling = replace(sampling, sampler="ddim", steps=min(DDIM_STEPS, settings.num_train_timesteps), eta=0.0)
    return diffusion, sampling


def settings_of(diffusion: DiffusionConfig, sampling: SamplingConfig, where: Path) -> SchedulerSettings:
    """DDPMScheduler's settings for undiffuse's configs.

    Raises:
        ValueError: DDPMScheduler does not support them.
    """
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if diffusion.parametrization not in predictions:
        raise ValueError(
            f"{where.absolute()} has the parametrization {diffusion.parametrization}, which diffusers' DDPMScheduler "
            f"does not support: it has {', '.join(predictions)}."
        )
    if not diffusion.is_discrete:
        raise ValueError(
            f"{where.absolute()} was trained on continuous noise levels ({diffusion.sigma_sampler}), which diffusers' "
            "DDPMScheduler does not support: it has a discrete schedule."
        )
    if diffusion.learned_variance:
        variance = "learned_range"
    else:
        variance = "fixed_large" if sampling.variance == "large" else "fixed_small"
    num_timesteps = diffusion.num_timesteps
    return SchedulerSettings(
        num_train_timesteps=num_timesteps,
        # The ends of noise.linear_betas; the cosine schedule ignores them.
        beta_start=0.1 / num_timesteps,
        beta_end=20 / num_timesteps,
        beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[diffusion.schedule],
        variance_type=variance,
        clip_sample=sampling.clip,
        prediction_type=predictions[diffusion.parametrization],
        timestep_spacing="trailing",  # Starts at the noisiest level for any number of steps.
    )


def _variance(
    settings: SchedulerSettings, class_name: str, learned_variance: bool, where: Path
) -> Literal["small", "large", "learned"]:
    if class_name == "DDIMScheduler":  # It has no learned variance; its own, for eta above 0, is the small one.
        if learned_variance:
            raise ValueError(unsupported(where, "_class_name", class_name, "a learned variance needs a DDPMScheduler"))
        return "small"
    if settings.variance_type not in VARIANCES:
        raise ValueError(unsupported(where, "variance_type", settings.variance_type, f"it has {', '.join(VARIANCES)}"))
    variance = VARIANCES[settings.variance_type]
    if (variance == "learned") != learned_variance:
        returned = "twice the channels that it takes" if learned_variance else "no variance"
        raise ValueError(
            f"{where.absolute()} has variance_type {settings.variance_type}, but its network returns {returned}: "
            "the two do not belong together."
        )
    return variance


def _schedule(settings: SchedulerSettings, where: Path) -> Literal["linear", "cosine"]:
    count = settings.num_train_timesteps
    if not 1 <= count <= MAX_TIMESTEPS:
        raise ValueError(unsupported(where, "num_train_timesteps", count, f"it has up to {MAX_TIMESTEPS:,}"))
    betas = _betas(settings, where)
    schedules: dict[Literal["linear", "cosine"], Tensor] = {
        "linear": linear_betas(count),
        "cosine": cosine_betas(count),
    }
    for schedule, expected in schedules.items():
        # diffusers keeps betas in float32.
        if betas.shape == expected.shape and torch.allclose(betas, expected, rtol=1e-5, atol=1e-8):
            return schedule
    raise ValueError(
        f"{where.absolute()} has {len(betas)} betas from {betas[0]:.3g} to {betas[-1]:.3g}, which undiffuse does not "
        "support: it has DDPM's linear schedule and Improved DDPM's cosine schedule."
    )


def _betas(settings: SchedulerSettings, where: Path) -> Tensor:
    if settings.trained_betas:
        return torch.tensor(settings.trained_betas, dtype=torch.float64)
    if settings.beta_schedule == "linear":
        start, end = settings.beta_start, settings.beta_end
        return torch.linspace(start, end, settings.num_train_timesteps, dtype=torch.float64)
    if settings.beta_schedule == "squaredcos_cap_v2":
        return cosine_betas(settings.num_train_timesteps)
    raise ValueError(unsupported(where, "beta_schedule", settings.beta_schedule, "it has linear and squaredcos_cap_v2"))
