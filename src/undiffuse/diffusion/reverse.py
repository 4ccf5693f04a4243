"""The reverse step p(x_s | x_sigma) of DDPM, a normal distribution, from any level sigma down to any s.

Everything is on this axis, x = x0 + sigma * eps; DDPM's own x_t is x / sqrt(1 + sigma^2).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LogVariance = Callable[..., Tensor]
"""(sigma, s, fraction, last) -> the log variance of the reverse step, all broadcast together. `fraction` is the
`variance_fraction` of a `Prediction`; `last` replaces log 0 in the step down to s = 0 (see `last_log_variance`)."""


def posterior_mean(x: Tensor, x0: Tensor, sigma: Tensor, s: Tensor) -> Tensor:
    """The mean of q(x_s | x_sigma, x0) (Ho et al. 2020, Eq. 7)."""
    return x0 + (s / sigma) ** 2 * (x - x0)


def small_variance(sigma: Tensor, s: Tensor) -> Tensor:
    """The variance of q(x_s | x_sigma, x0), beta tilde (Ho et al. 2020, Eq. 7): exact for data at one point."""
    return s**2 * (sigma**2 - s**2) / sigma**2


def large_variance(sigma: Tensor, s: Tensor) -> Tensor:
    """DDPM's beta (Ho et al. 2020, section 3.2): exact for data that is unit normal."""
    return (1 + s**2) * (sigma**2 - s**2) / (1 + sigma**2)


def small(sigma: Tensor, s: Tensor, fraction: Tensor | None = None, last: float | Tensor = -math.inf) -> Tensor:
    """The `LogVariance` of `small_variance`."""
    return torch.where(s > 0, small_variance(sigma, s).log(), last)


def large(sigma: Tensor, s: Tensor, fraction: Tensor | None = None, last: float | Tensor = -math.inf) -> Tensor:
    """The `LogVariance` of `large_variance`."""
    return torch.where(s > 0, large_variance(sigma, s).log(), last)


def learned(sigma: Tensor, s: Tensor, fraction: Tensor | None, last: float | Tensor = -math.inf) -> Tensor:
    """The `LogVariance` between the two that the network predicts (Nichol & Dhariwal 2021, Eq. 15).

    Raises:
        ValueError: the network predicts none.
    """
    if fraction is None:
        raise ValueError("This model did not learn its variance: choose small or large.")
    low, high = small(sigma, s, last=last), large_variance(sigma, s).log()
    return low + (high - low) * fraction


def last_log_variance(sigmas: Float[Tensor, " n"]) -> float:
    """The log variance used in the last step of falling `sigmas`, down to 0, where the small variance is 0.

    It is that of the step before, in DDPM's own scale (Ho et al. 2020 and Nichol & Dhariwal 2021, released code).

    Raises:
        ValueError: there are fewer than two steps.
    """
    if len(sigmas) < 3:
        raise ValueError("The last step takes its variance from the step before it: use at least 2 steps.")
    sigma, s = sigmas[-3], sigmas[-2]
    return float(small(sigma, s) - torch.log1p(s**2))


VARIANCES: dict[str, LogVariance] = {"small": small, "large": large, "learned": learned}
"""Keyed by the name used in config.json."""
