"""What diffusion's noise does to images along the discrete schedules of the papers."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from undiffuse.data.pixels import to_nchw, to_nhwc, to_pixels, to_signed_range
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.utils.randomness import ImageRandomness

TABLE_ROWS = 20
"""Timesteps in the table, evenly spaced."""


@dataclass(frozen=True)
class Schedule:
    """A discrete noise schedule; index t - 1 is timestep t of T."""

    name: str
    sigma: Float[Tensor, " T"]

    @property
    def signal(self) -> Float[Tensor, " T"]:
        """sqrt(alpha bar): the factor of the clean image in DDPM's x_t (Ho et al. 2020, Eq. 4)."""
        return 1 / torch.sqrt(1 + self.sigma**2)

    @property
    def snr(self) -> Float[Tensor, " T"]:
        """alpha bar / (1 - alpha bar), the signal-to-noise ratio (Kingma et al. 2021, Eq. 2)."""
        return self.sigma**-2


@dataclass(frozen=True)
class NoiseLevel:
    """One schedule at one timestep."""

    sigma: float
    signal: float
    """sqrt(alpha bar)."""
    snr: float


@dataclass(frozen=True)
class Timestep:
    """All schedules at the same timestep."""

    t: int
    """From 1 to T."""
    schedules: dict[str, NoiseLevel]


@dataclass(frozen=True)
class Noising:
    """The schedules in numbers."""

    num_timesteps: int
    timesteps: tuple[Timestep, ...]
    """Evenly spaced, the last one included."""
    crossover: dict[str, float]
    """For each schedule, the t / T at which the noise becomes as strong as the signal."""


def paper_schedules(num_timesteps: int = DiffusionConfig.num_timesteps) -> tuple[Schedule, ...]:
    """The linear schedule of Ho et al. 2020 and the cosine schedule of Nichol & Dhariwal 2021."""
    linear, cosine = (DiffusionConfig(schedule=name, num_timesteps=num_timesteps) for name in ("linear", "cosine"))
    return Schedule("linear", linear.discrete_schedule()), Schedule("cosine", cosine.discrete_schedule())


def tabulate(schedules: tuple[Schedule, ...]) -> Noising:
    """All schedules must have the same number of timesteps."""
    total = len(schedules[0].sigma)
    rows = [round(total * i / TABLE_ROWS) or 1 for i in range(1, TABLE_ROWS + 1)]
    return Noising(
        num_timesteps=total,
        timesteps=tuple(Timestep(t, {one.name: noise_level(one, t) for one in schedules}) for t in rows),
        crossover={one.name: (int(torch.searchsorted(one.sigma, 1.0)) + 1) / total for one in schedules},
    )


def noise_level(schedule: Schedule, t: int) -> NoiseLevel:
    """The noise level at timestep t, from 1 to T."""
    return NoiseLevel(*(float(values[t - 1]) for values in (schedule.sigma, schedule.signal, schedule.snr)))


def add_noise(
    image: UInt8[np.ndarray, "h w c"], schedule: Schedule, timesteps: list[int], seed: int = 0
) -> UInt8[np.ndarray, "b h w c"]:
    """DDPM's x_t of the image at each timestep, always with the same noise, clipped to [-1, 1]."""
    x0 = to_signed_range(to_nchw(np.array(image[None])))
    eps = ImageRandomness("exploration", seed, [0]).normal(*x0.shape[1:])
    sigma = schedule.sigma[[t - 1 for t in timesteps]].float().reshape(-1, 1, 1, 1)
    return to_nhwc(to_pixels((x0 + sigma * eps) / torch.sqrt(1 + sigma**2)))
