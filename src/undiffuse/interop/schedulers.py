"""Hugging Face diffusers' schedulers: the chain of noise levels, what is predicted, and how it is sampled."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.noise import cosine_betas, linear_betas
from undiffuse.diffusion.recipe import MAX_TIMESTEPS, DiffusionConfig
from undiffuse.interop.settings import refusal

PREDICTIONS: dict[str, Literal["eps", "x0", "v"]] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES: dict[str, Literal["small", "large", "learned"]] = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}
DDIM_ALONE = ("set_alpha_to_one",)
"""Settings that DDPMScheduler does not have."""
DDIM_STEPS = 50
"""DDIMPipeline's own number."""


@dataclass(frozen=True)
class SchedulerSettings:
    """DDPMScheduler's and DDIMScheduler's settings by their own names, with their own defaults."""

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
    # What follows does not change the model: thresholding's numbers, and which steps their sampler takes.
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True


# Setting, what of it can be expressed, and what undiffuse does.
_FIXED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("prediction_type", tuple(PREDICTIONS), f"it has networks that predict {', '.join(PREDICTIONS)}"),
    ("predict_epsilon", (None, True), "it reads prediction_type, which has replaced it"),
    ("thresholding", (False,), "it clips to [-1, 1] or not at all"),
    ("rescale_betas_zero_snr", (False,), "it has no noise level without any signal"),
)


def diffusion_of(
    settings: SchedulerSettings, kind: str, doubled: bool, where: Path
) -> tuple[DiffusionConfig, SamplingConfig]:
    """Our diffusion and sampling of a DDPMScheduler or DDIMScheduler (`kind`).

    `doubled` says that the network returns twice the channels: a variance with its prediction.

    Raises:
        ValueError: we cannot express a setting, which is named.
    """
    for name, expressible, ours in _FIXED:
        if getattr(settings, name) not in expressible:
            raise ValueError(refusal(where, name, getattr(settings, name), ours))
    if settings.clip_sample and settings.clip_sample_range != 1:
        raise ValueError(refusal(where, "clip_sample_range", settings.clip_sample_range, "it clips to [-1, 1]"))
    variance = _variance(settings, kind, doubled, where)
    schedule = _schedule(settings, where)
    try:
        diffusion = DiffusionConfig(
            parametrization=PREDICTIONS[settings.prediction_type],
            draw="discrete_uniform",
            schedule=schedule,
            num_timesteps=settings.num_train_timesteps,
            objective="hybrid" if doubled else "simple",
        )
    except ValueError as error:
        raise ValueError(f"{where.absolute()} has a chain that undiffuse does not: {error}") from error
    sampling = SamplingConfig(sampler="ancestral", steps=settings.num_train_timesteps, variance=variance)
    if kind == "DDIMScheduler":
        sampling = replace(sampling, sampler="ddim", steps=min(DDIM_STEPS, settings.num_train_timesteps), eta=0.0)
    return diffusion, replace(sampling, clip=settings.clip_sample)


def settings_of(diffusion: DiffusionConfig, sampling: SamplingConfig, where: Path) -> SchedulerSettings:
    """DDPMScheduler's settings for our diffusion.

    Raises:
        ValueError: DDPMScheduler cannot express it.
    """
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if diffusion.parametrization not in predictions:
        raise ValueError(
            f"{where.absolute()} predicts in the way of {diffusion.parametrization}, which diffusers' DDPMScheduler "
            f"cannot express: it knows {', '.join(predictions)}."
        )
    if not diffusion.is_discrete:
        raise ValueError(
            f"{where.absolute()} was trained on noise levels from a continuum ({diffusion.draw}), which diffusers' "
            "DDPMScheduler cannot express: it walks a chain of levels."
        )
    if diffusion.learned_variance:
        variance = "learned_range"
    else:
        variance = "fixed_large" if sampling.variance == "large" else "fixed_small"
    length = diffusion.num_timesteps
    return SchedulerSettings(
        num_train_timesteps=length,
        # The ends of noise.linear_betas; a cosine schedule has no use for them.
        beta_start=0.1 / length,
        beta_end=20 / length,
        beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[diffusion.schedule],
        variance_type=variance,
        clip_sample=sampling.clip,
        prediction_type=predictions[diffusion.parametrization],
        timestep_spacing="trailing",  # From the noisiest level, whatever the number of steps.
    )


def _variance(
    settings: SchedulerSettings, kind: str, doubled: bool, where: Path
) -> Literal["small", "large", "learned"]:
    if kind == "DDIMScheduler":  # Knows no learned variance, and its own, for eta above 0, is the small one.
        if doubled:
            raise ValueError(refusal(where, "_class_name", kind, "it needs a DDPMScheduler beside a learned variance"))
        return "small"
    if settings.variance_type not in VARIANCES:
        raise ValueError(refusal(where, "variance_type", settings.variance_type, f"it has {', '.join(VARIANCES)}"))
    variance = VARIANCES[settings.variance_type]
    if (variance == "learned") != doubled:
        returned = "twice the channels that it takes" if doubled else "no variance"
        raise ValueError(
            f"{where.absolute()} has variance_type {settings.variance_type}, but its network returns {returned}: "
            "the two do not belong together."
        )
    return variance


def _schedule(settings: SchedulerSettings, where: Path) -> Literal["linear", "cosine"]:
    length = settings.num_train_timesteps
    if not 1 <= length <= MAX_TIMESTEPS:
        raise ValueError(
            refusal(where, "num_train_timesteps", length, f"it has chains of up to {MAX_TIMESTEPS:,} levels")
        )
    betas = _betas(settings, where)
    ours: dict[Literal["linear", "cosine"], Tensor] = {"linear": linear_betas(length), "cosine": cosine_betas(length)}
    for schedule, expected in ours.items():
        # They keep betas in float32.
        if betas.shape == expected.shape and torch.allclose(betas, expected, rtol=1e-5, atol=1e-8):
            return schedule
    raise ValueError(
        f"{where.absolute()} has betas from {betas[0]:.3g} to {betas[-1]:.3g} in {len(betas)} levels, which undiffuse "
        "cannot express: it has DDPM's linear schedule and Improved DDPM's cosine."
    )


def _betas(settings: SchedulerSettings, where: Path) -> Tensor:
    if settings.trained_betas:
        return torch.tensor(settings.trained_betas, dtype=torch.float64)
    if settings.beta_schedule == "linear":
        start, end = settings.beta_start, settings.beta_end
        return torch.linspace(start, end, settings.num_train_timesteps, dtype=torch.float64)
    if settings.beta_schedule == "squaredcos_cap_v2":
        return cosine_betas(settings.num_train_timesteps)
    raise ValueError(refusal(where, "beta_schedule", settings.beta_schedule, "it has linear and squaredcos_cap_v2"))
