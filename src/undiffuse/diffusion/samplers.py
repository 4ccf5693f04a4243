"""Samplers: generators that walk a denoiser down a grid of sigmas and yield every step.

All take a denoiser, the noisy start x at `sigmas[0]` and falling `sigmas`, which end in 0. The last step's x is the
sample. Progress bars, film strips and live pages watch the same generator that makes the image.

The probability flow is dx/dsigma = d(x, sigma) with slope d = (x - D(x; sigma)) / sigma, the noise as the denoiser sees
it (Karras et al. 2022, Eq. 3). Some follow it; the others put fresh noise in at every step.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from undiffuse.diffusion import reverse
from undiffuse.diffusion.denoiser import Denoise, Estimator

Noise = Callable[[], Tensor]
"""Unit normal noise of x's shape, new at each call."""


class Step(NamedTuple):
    """The state after one step."""

    sigma: Tensor
    """The noise level reached, a scalar."""
    x: Tensor
    """The image at that level, x0 + sigma * eps, (b, c, h, w)."""
    x0: Tensor
    """The clean image as the denoiser estimated it on the way, (b, c, h, w)."""


def starting_noise(normal: Float[Tensor, "b c h w"], sigma: Float[Tensor, ""]) -> Float[Tensor, "b c h w"]:
    """The start at level sigma: DDPM's x_T ~ N(0, I) on this axis; at large sigma the same as EDM's sigma * eps."""
    return torch.sqrt(1 + sigma**2) * normal.to(sigma)


def euler(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
) -> Iterator[Step]:
    """Euler's method: first order, one function evaluation a step.

    On the chain's own levels this is DDIM with eta = 0 (Song et al. 2021a, Eq. 12 and 14).
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
    """Heun's method: second order, two NFE a step but one for the last (Karras et al. 2022, Algorithm 1)."""
    for sigma, s in pairwise(sigmas):
        x, x0 = _heun_step(denoise, x, sigma, s, label)
        yield Step(s, x, x0)


def churned_heun(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
    *,
    noise: Noise,
    churn: float,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Iterator[Step]:
    """Heun's method after raising the noise a little at each step (Karras et al. 2022, Algorithm 2).

    `churn` is S_churn, spread over the steps whose sigma lies from `churn_min` to `churn_max` (S_tmin, S_tmax);
    `churn_noise` is S_noise, the standard deviation of the noise put in.
    """
    most = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for sigma, s in pairwise(sigmas):
        gamma = most if churn_min <= sigma <= churn_max else 0.0
        raised = sigma * (1 + gamma)
        x = x + torch.sqrt(raised**2 - sigma**2) * churn_noise * noise().to(x)
        x, x0 = _heun_step(denoise, x, raised, s, label)
        yield Step(s, x, x0)


def _heun_step(denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
    """x at level s, and x0 as last estimated."""
    x0 = denoise(x, sigma.expand(len(x)), label)
    slope = (x - x0) / sigma
    x_next = x + (s - sigma) * slope
    if s > 0:
        x0 = denoise(x_next, s.expand(len(x)), label)
        slope_next = (x_next - x0) / s
        x_next = x + (s - sigma) * (slope + slope_next) / 2
    return x_next, x0


def dpmpp_2m(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M): second order from the last two estimates of x0, one function evaluation a step.

    Lu et al. 2022b, Algorithm 2, with lambda = -ln sigma.
    """
    x0_before, h_before = None, None
    for sigma, s in pairwise(sigmas):
        x0 = denoise(x, sigma.expand(len(x)), label)
        h = torch.log(sigma / s)  # Infinite for s = 0, where x becomes x0.
        ahead = x0
        if x0_before is not None and h_before is not None and s > 0:
            r = h_before / h
            ahead = x0 + (x0 - x0_before) / (2 * r)
        x = (s / sigma) * x - torch.expm1(-h) * ahead
        x0_before, h_before = x0, h
        yield Step(s, x, x0)


def lms(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
    *,
    order: int = 4,
) -> Iterator[Step]:
    """Linear multistep (Adams-Bashforth) on the grid as it is: the last `order` slopes, one function evaluation a step.

    The polynomial through the slopes is integrated exactly over each step (Zhang & Chen 2023, in sigma).
    """
    slopes: list[Tensor] = []
    for i, (sigma, s) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma.expand(len(x)), label)
        slopes = [(x - x0) / sigma, *slopes][:order]
        known = [sigmas[i - j] for j in range(len(slopes))]
        for weight, slope in zip(_integrals(known, sigma, s), slopes, strict=True):
            x = x + weight * slope
        yield Step(s, x, x0)


def _integrals(nodes: list[Tensor], start: Tensor, end: Tensor) -> list[Tensor]:
    """The integral from `start` to `end` of each Lagrange polynomial on `nodes`, of which there are at most four."""
    # Gauss and Legendre's rule with two points is exact up to cubic polynomials.
    middle, half = (start + end) / 2, (end - start) / 2
    points = [middle - half / math.sqrt(3), middle + half / math.sqrt(3)]
    integrals = []
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        values = [math.prod((point - other) / (node - other) for other in others) for point in points]
        integrals.append(half * (values[0] + values[1]))
    return integrals


ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""The weights of the last slopes, newest first, for orders 1 to 4 on an even grid."""


def ipndm(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
    *,
    order: int = 4,
) -> Iterator[Step]:
    """Linear multistep with the weights of an even grid, order 1 to 4, begun with lower ones: one NFE a step.

    Liu et al. 2022's PNDM as Zhang & Chen 2023 improved its start. Not exact on an uneven grid, and yet the best known
    for few steps on Karras et al.'s.
    """
    slopes: list[Tensor] = []
    for sigma, s in pairwise(sigmas):
        x0 = denoise(x, sigma.expand(len(x)), label)
        slopes = [(x - x0) / sigma, *slopes][:order]
        # The step down to 0 takes the estimate of x0 itself.
        weights = ADAMS_BASHFORTH[len(slopes) - 1] if s > 0 else ADAMS_BASHFORTH[0]
        x = x + (s - sigma) * sum(weight * slope for weight, slope in zip(weights, slopes, strict=False))
        yield Step(s, x, x0)


def ancestral(
    estimate: Estimator,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
    *,
    noise: Noise,
    variance: reverse.LogVariance = reverse.small,
) -> Iterator[Step]:
    """DDPM's own sampler (Ho et al. 2020, Algorithm 2) for a step from any sigma down to any s.

    It alone takes an estimator (see `denoiser.without_variance`), whose variance may be learned.
    """
    for sigma, s in pairwise(sigmas):
        x0, fraction = estimate(x, sigma.expand(len(x)), label)
        mean = reverse.posterior_mean(x, x0, sigma, s)
        x = mean + torch.exp(variance(sigma, s, fraction) / 2) * noise().to(x) if s > 0 else mean
        yield Step(s, x, x0)


def ddim(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Int[Tensor, " b"] | None = None,
    *,
    noise: Noise,
    eta: float = 0.0,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021a, Eq. 12 and 16): eta 0 is `euler`, eta 1 is `ancestral` with the small variance.

    On this axis that is also Euler's method with ancestral noise, `euler_ancestral`, as others call it.
    """
    for sigma, s in pairwise(sigmas):
        x0 = denoise(x, sigma.expand(len(x)), label)
        fresh = eta**2 * (1 - (s / sigma) ** 2)  # The share of the variance s^2: this way it never exceeds 1.
        x = x0 + s * torch.sqrt(1 - fresh) * (x - x0) / sigma
        if eta > 0 and s > 0:
            x = x + s * torch.sqrt(fresh) * noise().to(x)
        yield Step(s, x, x0)
