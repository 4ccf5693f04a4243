"""Edits of images with a trained model: generators that yield a sampler's steps, as `sample_steps` does.

Images are (channels, height, width) in [-1, 1] at the model's size. One result is made per seed, and depends on its
seed and the options alone. `label` is what the model is told for all results: a class by index, or the
conditions of one image; None is no label, for models with classes too. The x of the last step is the result.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion import samplers
from undiffuse.diffusion.inverse_problems import Separable, corrected, posterior
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.diffusion.samplers import Step
from undiffuse.sampling.edit_tasks import TASKS
from undiffuse.sampling.model import Model, last, sample_steps, seeded_noise, steps_from
from undiffuse.sampling.options import adds_noise, noise_levels
from undiffuse.utils.conditions import NO_LABEL, Condition, Conditions
from undiffuse.utils.device import state_dtype, upload

Told = int | Conditions | None
"""For all results: a class by index, or the conditions of one image; None: no label."""

RESAMPLINGS = 10
"""How often inpainting makes each step: Lugmayr et al. 2022 find that 10 is enough."""

NOISE_STD = 2 / 255
"""Standard deviation of a measurement's noise, in pixels from -1 to 1: one of 256 levels."""


def inpaint_steps(
    model: Model,
    image: Float[Tensor, "c h w"],
    mask: Bool[Tensor, "h w"],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    label: Told = None,
    *,
    resamplings: int = RESAMPLINGS,
) -> Iterator[Step]:
    """Regenerates the pixels where `mask` is True; all others are the image's own (RePaint, Lugmayr et al. 2022).

    At every level the known pixels are replaced by x0 + sigma * eps (Eq. 8). That alone leaves a seam, because the
    step was made for other neighbors: so each step is made `resamplings` times, between which noise leads back up
    (Algorithm 1, whose jumps are of one step here).

    Raises:
        ValueError: the sampler remembers its last steps, which going back makes worthless.
    """
    check_can_inpaint(sampling)
    return _inpainted(model, image, mask, seeds, _conditions(model, label, len(seeds)), sampling, resamplings)


def _inpainted(
    model: Model,
    image: Tensor,
    mask: Tensor,
    seeds: Sequence[int],
    conditions: Condition,
    sampling: SamplingConfig,
    resamplings: int,
) -> Iterator[Step]:
    sigmas = noise_levels(model.diffusion, sampling).to(state_dtype(model.device))
    noise, known, hidden = seeded_noise(model, seeds), _state(model, image), upload(mask, model.device)
    eps = noise()
    x = torch.where(hidden, samplers.starting_noise(eps, sigmas[0]), known + sigmas[0] * eps)
    for sigma, s in pairwise(sigmas):
        times = resamplings if s > 0 else 1
        for time in range(times):
            step = last(steps_from(model, x, torch.stack([sigma, s]), conditions, sampling, noise))
            x = torch.where(hidden, step.x, known + s * noise())
            if time + 1 < times:
                x = x + torch.sqrt(sigma**2 - s**2) * noise()
        yield Step(s, x, torch.where(hidden, step.x0, known))


def vary_steps(
    model: Model,
    image: Float[Tensor, "c h w"],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    label: Told = None,
    *,
    strength: float = 0.5,
) -> Iterator[Step]:
    """Variations of an image: noise is added to it, and sampling goes on from there (SDEdit, Meng et al. 2022).

    Of all steps the last fraction `strength` is made, rounded up to a whole number. 0 gives the image back without an
    evaluation; 1 is the sample of the seed, whatever the image.
    """
    conditions = _conditions(model, label, len(seeds))
    if strength == 1:
        return sample_steps(model, seeds, conditions, sampling)
    known = _state(model, image).expand(len(seeds), -1, -1, -1)
    made = steps_of_strength(sampling.steps, strength)
    if made == 0:
        return iter([Step(torch.zeros(()), known, known)])
    sigmas = noise_levels(model.diffusion, sampling)[-1 - made :]
    noise = seeded_noise(model, seeds)
    return steps_from(model, known + sigmas[0].item() * noise(), sigmas, conditions, sampling, noise)


def steps_of_strength(steps: int, strength: float) -> int:
    """How many of the steps are made: none for strength 0, all for 1."""
    return math.ceil(round(strength * steps, 9))  # 0.07 of 100 steps are 7, though the product is a little more.


def restore_steps(
    model: Model,
    operator: Separable,
    measurement: Float[Tensor, "d k l"],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    label: Told = None,
    *,
    noise_std: float = NOISE_STD,
) -> Iterator[Step]:
    """Images that the model finds likely and of which `operator` gives the measurement, up to noise.

    Colorizing, deblurring and enlarging differ in the operator alone: see `diffusion.inverse_problems`. Predictions are
    clipped to [-1, 1], where the clean image lies: far from it, guidance overshoots, since pixels are not independent.
    """
    conditions = _conditions(model, label, len(seeds))
    y, data_std = _state(model, measurement), model.diffusion.sigma_data
    operator = operator.to(y)
    wrap = partial(posterior, operator=operator, y=y, noise_std=noise_std, data_std=data_std)
    for step in sample_steps(model, seeds, conditions, replace(sampling, clip=True), wrap):
        finished = step.sigma == 0
        yield step._replace(x=corrected(step.x, operator, y, noise_std=noise_std)) if finished else step


def seed_starts(model: Model, seeds: Sequence[int], sampling: SamplingConfig) -> Float[Tensor, "b c h w"]:
    """The noisy images from which `sample_steps` makes these seeds."""
    sigmas = noise_levels(model.diffusion, sampling).to(state_dtype(model.device))
    return samplers.starting_noise(seeded_noise(model, seeds)(), sigmas[0])


def invert_steps(
    model: Model, images: Float[Tensor, "b c h w"], sampling: SamplingConfig, label: Told = None
) -> Iterator[Step]:
    """Up the probability flow, from images to the noise that makes them: DDIM inversion, with any solver.

    The images are taken to be at the lowest level above 0; the last x is at the highest (Song et al. 2021a, 5.4).

    Raises:
        ValueError: the sampler adds noise, or there is only one step.
    """
    check_can_invert(sampling)
    conditions = _conditions(model, label, len(images))
    rising = noise_levels(model.diffusion, sampling)[:-1].flip(0)
    x = upload(images.double(), model.device)
    return steps_from(model, x, rising, conditions, sampling, seeded_noise(model, range(len(x))))


def interpolate_steps(
    model: Model,
    first: Float[Tensor, "c h w"],
    second: Float[Tensor, "c h w"],
    fractions: Sequence[float],
    sampling: SamplingConfig,
    label: Told = None,
) -> Iterator[Step]:
    """Images between two noises, each from the noise that lies a fraction of the way from the first to the second.

    Both are at the highest level: those of two seeds (`seed_starts`), or those of two images (`invert_steps`).

    Raises:
        ValueError: the sampler adds noise, which would have nothing to do with either.
    """
    check_can_interpolate(sampling)
    conditions = _conditions(model, label, len(fractions))
    x = torch.stack([slerp(first, second, fraction) for fraction in fractions])
    sigmas = noise_levels(model.diffusion, sampling)
    return steps_from(model, x, sigmas, conditions, sampling, seeded_noise(model, range(len(x))))


def check_can_edit(config: Config, task: str, sampler: str | None, name: str) -> None:
    """Raises ValueError for a model that makes images from others, or for a student whose sampler cannot do the edit.

    `sampler` is the one that was asked for.
    """
    if config.image_condition is not None:
        raise ValueError(
            f"{name} makes images from others and cannot edit: choose one that was trained without other images, or "
            "generate with this one."
        )
    if config.diffusion.jumps and TASKS[task].sampler is not None and sampler is None:
        source = f", {config.origin.run}" if config.origin else ""
        raise ValueError(
            f"{name} jumps to an image in one or two steps, which {task} cannot lead: give the run that it was "
            f"distilled from{source}; vary works with either."
        )


def check_can_inpaint(sampling: SamplingConfig) -> None:
    """Raises ValueError for a sampler that remembers its last steps, which going back makes worthless."""
    if SAMPLERS[sampling.sampler].multistep:
        usable = ", ".join(name for name, row in SAMPLERS.items() if not row.multistep)
        raise ValueError(f"--sampler {sampling.sampler} is multistep and cannot inpaint: choose one of {usable}.")


def check_can_interpolate(sampling: SamplingConfig) -> None:
    """Raises ValueError for a sampler whose image does not depend on its starting noise alone."""
    if adds_noise(sampling):
        raise ValueError(f"--sampler {sampling.sampler} adds fresh noise, so no noise is one image's: choose ipndm.")


def check_can_invert(sampling: SamplingConfig) -> None:
    """Raises ValueError where images cannot be led back to their noise."""
    check_can_interpolate(sampling)
    if sampling.steps < 2:
        raise ValueError("--steps 1 cannot lead an image back to its noise: give at least 2.")


def slerp(first: Float[Tensor, "*s"], second: Float[Tensor, "*s"], fraction: float) -> Float[Tensor, "*s"]:
    """Spherical linear interpolation: what lies between two noises is as long as they are (Shoemake 1985)."""
    cosine = (first * second).sum() / (first.norm() * second.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:  # The same direction: there is no arc.
        return torch.lerp(first, second, fraction)
    weights = torch.sin((1 - fraction) * angle), torch.sin(fraction * angle)
    return (weights[0] * first + weights[1] * second) / torch.sin(angle)


def _conditions(model: Model, label: Told, count: int) -> Condition:
    if isinstance(label, Conditions):
        return label.map(lambda each: each.expand(count, *each.shape[1:]))
    return torch.full((count,), NO_LABEL if label is None else label) if model.class_names else None


def _state(model: Model, image: Float[Tensor, "c h w"]) -> Float[Tensor, "1 c h w"]:
    """One image as a batch where the sampler's state is, in its type."""
    return upload(image.double()[None], model.device)
