"""Samplers: generators that walk a denoiser down a grid of sigmas and yield every step.

All take `denoise`, the noisy start x at `sigmas[0]` and falling `sigmas` that end in 0. The last step's x is the
sample. Progress bars, film strips and live pages watch the same generator that makes the picture.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from undiffuse.diffusion.denoiser import Denoise

Variance = Callable[[Tensor, Tensor], Tensor]
"""The variance of an ancestral step from level sigma down to level s."""


class Step(NamedTuple):
    """The state after one step."""

    sigma: Tensor
    """The noise level reached, a scalar."""
    x: Tensor
    """The picture at that level, x0 + sigma * eps, (b, c, h, w)."""
    x0: Tensor
    """The clean picture as the denoiser estimated it on the way, (b, c, h, w)."""


def starting_noise(normal: Float[Tensor, "b c h w"], sigma: Float[Tensor, ""]) -> Float[Tensor, "b c h w"]:
    """The start at level sigma: DDPM's x_T ~ N(0, I) on this axis; at large sigma the same as EDM's sigma * eps."""
    return torch.sqrt(1 + sigma**2) * normal.to(sigma)


def euler(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
) -> Iterator[Step]:
    """Euler's method on dx/dsigma = (x - D) / sigma: first order, one network call a step.

    On the chain's own levels this is DDIM with eta = 0 (Song et al. 2021, Eq. 12 and 14).
    """
    for sigma, s in pairwise(sigmas):
        x0 = denoise(x, sigma.expand(len(x)), label)
        x = x0 + (s / sigma) * (x - x0)
        yield Step(s, x, x0)


def heun(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
) -> Iterator[Step]:
    """Heun's method: second order, two network calls a step but one for the last (Karras et al. 2022, Algorithm 1)."""
    for sigma, s in pairwise(sigmas):
        x0 = denoise(x, sigma.expand(len(x)), label)
        slope = (x - x0) / sigma
        x_next = x + (s - sigma) * slope
        if s > 0:
            x0 = denoise(x_next, s.expand(len(x)), label)
            slope_next = (x_next - x0) / s
            x_next = x + (s - sigma) * (slope + slope_next) / 2
        x = x_next
        yield Step(s, x, x0)


def small_variance(sigma: Tensor, s: Tensor) -> Tensor:
    """The variance of q(x_s | x_sigma, x0), beta tilde (Ho et al. 2020, Eq. 7): exact for data at one point."""
    return s**2 * (sigma**2 - s**2) / sigma**2


def large_variance(sigma: Tensor, s: Tensor) -> Tensor:
    """DDPM's beta (Ho et al. 2020, section 3.2): exact for data that is unit normal."""
    return (1 + s**2) * (sigma**2 - s**2) / (1 + sigma**2)


def ancestral(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
    *,
    noise: Callable[[], Tensor],
    variance: Variance = small_variance,
) -> Iterator[Step]:
    """DDPM's own sampler (Ho et al. 2020, Algorithm 2) for a step from any sigma down to any s.

    `noise` is called once a step but for the last and returns unit normal noise of x's shape.
    """
    for sigma, s in pairwise(sigmas):
        x0 = denoise(x, sigma.expand(len(x)), label)
        mean = x0 + (s / sigma) ** 2 * (x - x0)  # Posterior mean (Ho et al. 2020, Eq. 7).
        x = mean + torch.sqrt(variance(sigma, s)) * noise().to(x) if s > 0 else mean
        yield Step(s, x, x0)
