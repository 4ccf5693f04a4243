"""What the noise of diffusion does to images along the papers' chains of noise levels."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from undiffuse.data.pixels import to_pixels, to_unit_range
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.utils.randomness import ImageRandomness

TABLE_LEVELS = 20
"""Levels of the chain that the table lists, evenly spread."""


@dataclass(frozen=True)
class Curve:
    """A schedule over its whole chain; index t - 1 is the t-th of T levels."""

    name: str
    sigma: Float[Tensor, " T"]

    @property
    def signal(self) -> Float[Tensor, " T"]:
        """sqrt(alpha bar): the factor before the clean image in DDPM's x_t (Ho et al. 2020, Eq. 4)."""
        return 1 / torch.sqrt(1 + self.sigma**2)

    @property
    def snr(self) -> Float[Tensor, " T"]:
        """alpha bar / (1 - alpha bar), the signal-to-noise ratio (Kingma et al. 2021, Eq. 2)."""
        return self.sigma**-2


@dataclass(frozen=True)
class Level:
    """One schedule at one level of the chain."""

    sigma: float
    signal: float
    snr: float


@dataclass(frozen=True)
class Levels:
    """All schedules at the same t, by name."""

    t: int
    """From 1 to T."""
    schedules: dict[str, Level]


@dataclass(frozen=True)
class Noising:
    """The schedules, level by level."""

    num_timesteps: int
    levels: tuple[Levels, ...]
    as_much_noise: dict[str, float]
    """For each schedule the t / T at which noise becomes as strong as signal."""


def curves(num_timesteps: int = DiffusionConfig.num_timesteps) -> tuple[Curve, ...]:
    """The linear schedule of Ho et al. 2020 and the cosine schedule of Nichol & Dhariwal 2021."""
    linear, cosine = (DiffusionConfig(schedule=name, num_timesteps=num_timesteps) for name in ("linear", "cosine"))
    return Curve("linear", linear.chain()), Curve("cosine", cosine.chain())


def noising(schedules: tuple[Curve, ...]) -> Noising:
    num_timesteps = len(schedules[0].sigma)
    return Noising(
        num_timesteps=num_timesteps,
        levels=tuple(Levels(t, {curve.name: level(curve, t) for curve in schedules}) for t in _evenly(num_timesteps)),
        as_much_noise={c.name: (int(torch.searchsorted(c.sigma, 1.0)) + 1) / num_timesteps for c in schedules},
    )


def level(curve: Curve, t: int) -> Level:
    """The t-th level, t from 1 to T."""
    return Level(*(float(values[t - 1]) for values in (curve.sigma, curve.signal, curve.snr)))


def _evenly(num_timesteps: int, count: int = TABLE_LEVELS) -> list[int]:
    """`count` levels from 1 to T, the last always."""
    return [round(num_timesteps * i / count) or 1 for i in range(1, count + 1)]


def noisy(
    image: UInt8[np.ndarray, "h w c"], curve: Curve, levels: list[int], seed: int = 0
) -> UInt8[np.ndarray, "b h w c"]:
    """DDPM's x_t of the image at each level, always with the same noise; what lies outside [-1, 1] is clipped."""
    x0 = nn.Sequential(*to_unit_range())(torch.tensor(image).permute(2, 0, 1))
    eps = ImageRandomness("exploration", seed, [0]).normal(*x0.shape)
    sigma = curve.sigma[[t - 1 for t in levels]].float().reshape(-1, 1, 1, 1)
    return to_pixels((x0 + sigma * eps) / torch.sqrt(1 + sigma**2)).permute(0, 2, 3, 1).numpy()
