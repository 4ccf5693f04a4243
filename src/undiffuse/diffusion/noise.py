"""The noise level sigma: the papers' schedules, the distributions that training samples, and the samplers' sigmas.

Everywhere x = x0 + sigma * eps. DDPM's variance-preserving x_t is x / sqrt(1 + sigma^2), and its alpha bar is
1 / (1 + sigma^2), so sigma = sqrt(1 / alpha_bar - 1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

Quantile = Callable[[Tensor], Tensor]
"""The quantile function of a distribution of sigma: maps uniform numbers in [0, 1), one per image, to sigmas."""


# Discrete schedules: betas, and from them sigmas, at the indices 0 (least noise) to T - 1, float64.


def linear_betas(num_timesteps: int) -> Float[Tensor, " T"]:
    """Ho et al. 2020, section 4: beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T for other lengths."""
    scale = 1000 / num_timesteps
    return torch.linspace(scale * 1e-4, scale * 0.02, num_timesteps, dtype=torch.float64)


def cosine_betas(num_timesteps: int, max_beta: float = 0.999) -> Float[Tensor, " T"]:
    """Nichol & Dhariwal 2021, Eq. 17: alpha bar falls as a squared cosine; beta is capped at `max_beta`."""
    t = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)


def sigmas_of_betas(betas: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """The rising sigmas of a discrete schedule: sigma_t = sqrt(1 / alpha_bar_t - 1)."""
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    return torch.sqrt(1 / alpha_bar - 1)


@dataclass(frozen=True)
class Schedule:
    betas: Callable[[int], Tensor]
    """num_timesteps -> betas `(T,)`."""
    min_timesteps: int
    """The least number of timesteps for which the formula gives a schedule."""
    about: str


SCHEDULES: dict[str, Schedule] = {
    # The last beta of the linear schedule is 20 / T and must be below 1.
    "linear": Schedule(linear_betas, 21, "DDPM's"),
    "cosine": Schedule(cosine_betas, 2, "Improved DDPM's"),
}
"""Keyed by the name used in config.json."""


def beside(table: Float[Tensor, " T"], like: Tensor) -> Float[Tensor, " T"]:
    """A discrete schedule on the device and in the dtype of `like`; copied there once, since a copy waits for a GPU."""
    return _copied(table, like.device, like.dtype)


@lru_cache(maxsize=16)
def _copied(table: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return table.to(device, dtype)


# Distributions of sigma in training.


def discrete_uniform(sigmas: Float[Tensor, " T"]) -> Quantile:
    """Every level of the discrete schedule equally often (Ho et al. 2020, Algorithm 1)."""
    return lambda u: sigmas.to(u)[(u * len(sigmas)).long()]


def log_normal(mean: float, std: float) -> Quantile:
    """ln sigma ~ N(mean, std^2) (Karras et al. 2022, Table 1: -1.2 and 1.2)."""
    return lambda u: torch.exp(mean + std * _normal_quantile(u))


def logit_normal(mean: float, std: float) -> Quantile:
    """logit t ~ N(mean, std^2) for flow matching's time t = sigma / (1 + sigma) (Esser et al. 2024, section 3.1).

    Since sigma = t / (1 - t), logit t is ln sigma: on this axis that is a log-normal distribution.
    """
    return log_normal(mean, std)


def _normal_quantile(u: Tensor) -> Tensor:
    # u = 0 would be sigma = 0, where there is nothing to learn and c_out divides by zero.
    smallest = torch.finfo(u.dtype).eps
    return torch.special.ndtri(u.clamp(smallest, 1 - smallest))


# Sigmas for sampling: falling, ending in 0, float64, one more than there are steps.


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Float[Tensor, " n"]:
    """Karras et al. 2022, Eq. 5: `steps` levels evenly spaced in sigma^(1/rho), then 0.

    Raises:
        ValueError: `steps` is less than 1.
    """
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _ending_in_zero((high + _ramp(steps) * (low - high)) ** rho)


def log_snr_sigmas(steps: int, sigma_min: float, sigma_max: float) -> Float[Tensor, " n"]:
    """`steps` levels evenly spaced in log SNR = -2 ln sigma (Lu et al. 2022a), then 0.

    Raises:
        ValueError: `steps` is less than 1.
    """
    high, low = math.log(sigma_max), math.log(sigma_min)
    return _ending_in_zero(torch.exp(high + _ramp(steps) * (low - high)))


def discrete_sigmas(indices: Sequence[int], sigmas: Float[Tensor, " T"]) -> Float[Tensor, " n"]:
    """The discrete schedule at rising `indices` (see `strided`), from the noisiest down, then 0."""
    return _ending_in_zero(sigmas[list(indices)].flip(0))


# Strides: the indices of a discrete schedule that a shorter one keeps, rising.


def strided(num_timesteps: int, stride: str) -> list[int]:
    """The indices that a shorter schedule keeps (Nichol & Dhariwal 2021, section 4).

    `stride` is "N": N of them, evenly spaced from the first to the last; or "a,b,c": equal sections with a, b and c
    indices; or "ddimN": every k-th from 0 on (Song et al. 2021a), which leaves out the last ones.

    Raises:
        ValueError: it is none of these, or wants more indices than there are.
    """
    if stride.startswith("ddim"):
        return _ddim_stride(num_timesteps, _counts(stride.removeprefix("ddim"), stride)[0])
    counts = _counts(stride, stride)
    section_length, longer = divmod(num_timesteps, len(counts))
    kept: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        length = section_length + (i < longer)
        if count > length:
            raise ValueError(f"{count} steps do not fit {length} timesteps: choose between 1 and {length}.")
        spacing = (length - 1) / (count - 1) if count > 1 else 1.0
        # Added up, not multiplied: the released code rounds these sums, and ties fall differently.
        kept += [start + round(at) for at in accumulate([spacing] * (count - 1), initial=0.0)]
        start += length
    return kept


def _ddim_stride(num_timesteps: int, count: int) -> list[int]:
    for spacing in range(1, num_timesteps + 1):
        if len(range(0, num_timesteps, spacing)) == count:
            return list(range(0, num_timesteps, spacing))
    raise ValueError(
        f"ddim{count} is not a stride of {num_timesteps} timesteps: no whole spacing keeps {count} of them."
    )


def _counts(text: str, stride: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{stride} is not a stride: write for example 50, ddim50 or 10,15,20.")
    return [int(part) for part in parts]


def _ramp(steps: int) -> Float[Tensor, " n"]:
    if steps < 1:
        raise ValueError(f"{steps} sampling steps are too few: take at least 1.")
    return torch.linspace(0, 1, steps, dtype=torch.float64)


def _ending_in_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])
