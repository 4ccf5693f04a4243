"""Samplers: generators that step a denoiser down falling sigmas and yield every step.

All take a denoiser, the noisy start x at `sigmas[0]`, and falling `sigmas` that end in 0, best on the CPU: to branch on
one that is on a GPU, the program has to wait for it. The x of the last step is the sample. Progress bars, film strips
and live pages watch the same generator that makes the image. What else is known of each, such as its NFE, is one row of
`diffusion.sampler_table`.

The probability flow is dx/dsigma = d(x, sigma) with slope d = (x - D(x; sigma)) / sigma, the noise as the denoiser sees
it (Karras et al. 2022, Eq. 3). Some samplers follow it; the others add fresh noise at every step.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion import reverse
from undiffuse.diffusion.denoiser import Denoise, Predict, per_image
from undiffuse.utils.conditions import Condition

Noise = Callable[[], Tensor]
"""Unit normal noise of x's shape, new at each call."""


class Step(NamedTuple):
    """The state after one step."""

    sigma: Tensor
    """The noise level reached, a scalar on the CPU."""
    x: Tensor
    """The image at that level, x0 + sigma * eps, (b, c, h, w)."""
    x0: Tensor
    """The clean image that the denoiser predicted in this step, (b, c, h, w)."""


def starting_noise(normal: Float[Tensor, "b c h w"], sigma: Float[Tensor, ""]) -> Float[Tensor, "b c h w"]:
    """The start at level sigma: DDPM's x_T ~ N(0, I) on this axis; at large sigma the same as EDM's sigma * eps."""
    return torch.sqrt(1 + sigma.cpu() ** 2) * normal.to(sigma.dtype)


def euler(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
) -> Iterator[Step]:
    """Euler's method: first order, NFE 1 per step.

    On a discrete schedule this is DDIM with eta = 0 (Song et al. 2021a, Eq. 12 and 14).
    """
    for sigma, s in pairwise(sigmas.cpu()):
        x0 = denoise(x, per_image(sigma, x), label)
        x = x0 + (s / sigma) * (x - x0)
        yield Step(s, x, x0)


def heun(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Noise | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.05,
    s_tmax: float = 50.0,
    s_noise: float = 1.003,
) -> Iterator[Step]:
    """Heun's method: second order, NFE 2 per step, 1 in the last (Karras et al. 2022, Algorithm 1).

    With `s_churn` above 0 it is stochastic (Algorithm 2) and needs `noise`: each step whose sigma lies between `s_tmin`
    and `s_tmax` first adds noise of standard deviation `s_noise`. Their defaults are EDM's for ImageNet-64 (Table 5).
    """
    max_gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for sigma, s in pairwise(sigmas.cpu()):
        if s_churn > 0:
            gamma = max_gamma if s_tmin <= sigma <= s_tmax else 0.0
            raised = sigma * (1 + gamma)
            x = x + torch.sqrt(raised**2 - sigma**2) * s_noise * given(noise)().to(x)
            sigma = raised
        x0 = denoise(x, per_image(sigma, x), label)
        slope = (x - x0) / sigma
        x_next = x + (s - sigma) * slope
        if s > 0:
            x0 = denoise(x_next, per_image(s, x), label)
            slope_next = (x_next - x0) / s
            x_next = x + (s - sigma) * (slope + slope_next) / 2
        x = x_next
        yield Step(s, x, x0)


def given(noise: Noise | None) -> Noise:
    """The noise that a stochastic sampler was given.

    Raises:
        ValueError: it was given none.
    """
    if noise is None:
        raise ValueError("With these options the sampler adds noise: pass noise=lambda: torch.randn_like(x).")
    return noise


def dpmpp_2m(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M): second order from the last two predictions of x0, NFE 1 per step.

    Lu et al. 2022b, Algorithm 2, with lambda = -ln sigma.
    """
    x0_old, h_old = None, None
    for sigma, s in pairwise(sigmas.cpu()):
        x0 = denoise(x, per_image(sigma, x), label)
        h = torch.log(sigma / s)  # Infinite for s = 0, where x becomes x0.
        extrapolated = x0
        if x0_old is not None and h_old is not None and s > 0:
            r = h_old / h
            extrapolated = x0 + (x0 - x0_old) / (2 * r)
        x = (s / sigma) * x - torch.expm1(-h) * extrapolated
        x0_old, h_old = x0, h
        yield Step(s, x, x0)


def lms(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    order: int = 4,
) -> Iterator[Step]:
    """Linear multistep (Adams-Bashforth) for sigmas of any spacing: the last `order` slopes, 1 to 4, NFE 1 per step.

    The polynomial through the slopes is integrated exactly over each step (Zhang & Chen 2023, in sigma).
    """
    sigmas, slopes = sigmas.cpu(), []
    for i, (sigma, s) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, per_image(sigma, x), label)
        slopes = [(x - x0) / sigma, *slopes][:order]
        known = [sigmas[i - j] for j in range(len(slopes))]
        for weight, slope in zip(_integrals(known, sigma, s), slopes, strict=True):
            x = x + weight * slope
        yield Step(s, x, x0)


def _integrals(nodes: list[Tensor], start: Tensor, end: Tensor) -> list[Tensor]:
    """The integral from `start` to `end` of each Lagrange polynomial on up to four `nodes`."""
    # Gauss-Legendre quadrature with two points is exact up to cubic polynomials.
    middle, half = (start + end) / 2, (end - start) / 2
    points = [middle - half / math.sqrt(3), middle + half / math.sqrt(3)]
    integrals = []
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        values = [math.prod((point - other) / (node - other) for other in others) for point in points]
        integrals.append(half * (values[0] + values[1]))
    return integrals


ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""The weights of the last slopes, newest first, for orders 1 to 4 and evenly spaced steps."""


def ipndm(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    order: int = 4,
) -> Iterator[Step]:
    """Linear multistep, order 1 to 4, with the weights of evenly spaced steps, started with lower orders: NFE 1.

    PNDM (Liu et al. 2022) with the start of Zhang & Chen 2023. Its weights are not exact for uneven steps, yet it is
    the best sampler known for few steps on Karras et al.'s sigmas.
    """
    slopes: list[Tensor] = []
    for sigma, s in pairwise(sigmas.cpu()):
        x0 = denoise(x, per_image(sigma, x), label)
        slopes = [(x - x0) / sigma, *slopes][:order]
        # The step down to 0 takes the predicted x0 itself.
        weights = ADAMS_BASHFORTH[len(slopes) - 1] if s > 0 else ADAMS_BASHFORTH[0]
        x = x + (s - sigma) * sum(weight * slope for weight, slope in zip(weights, slopes, strict=False))
        yield Step(s, x, x0)


def ancestral(
    predict: Predict,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Noise,
    variance: reverse.LogVariance = reverse.small,
) -> Iterator[Step]:
    """DDPM's own sampler (Ho et al. 2020, Algorithm 2) with steps from any sigma down to any s.

    The only one that takes a predictor, whose variance may be learned. For a plain denoiser, pass
    `denoiser.without_variance(denoise)`.
    """
    for sigma, s in pairwise(sigmas.cpu()):
        x0, variance_fraction = predict(x, per_image(sigma, x), label)
        mean = reverse.posterior_mean(x, x0, sigma, s)
        x = mean + torch.exp(variance(sigma, s, variance_fraction) / 2) * noise().to(x) if s > 0 else mean
        yield Step(s, x, x0)


def ddim(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Noise | None = None,
    eta: float = 0.0,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021a, Eq. 12 and 16): eta 0 is `euler`, eta 1 is `ancestral` with the small variance.

    With `eta` above 0 it needs `noise`.
    """
    for sigma, s in pairwise(sigmas.cpu()):
        x0 = denoise(x, per_image(sigma, x), label)
        fresh = eta**2 * (1 - (s / sigma) ** 2)  # As a fraction of the variance s^2: it never rounds to more than 1.
        x = x0 + s * torch.sqrt(1 - fresh) * (x - x0) / sigma
        if eta > 0 and s > 0:
            x = x + s * torch.sqrt(fresh) * given(noise)().to(x)
        yield Step(s, x, x0)


def euler_ancestral(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Noise,
) -> Iterator[Step]:
    """Euler's method with ancestral noise, which on this axis is DDIM with eta 1."""
    return ddim(denoise, x, sigmas, label, noise=noise, eta=1.0)


def consistency(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Noise,
) -> Iterator[Step]:
    """Multistep consistency sampling (Song et al. 2023, Algorithm 1): jump to an image, add fresh noise, jump again.

    For models of `diffusion.consistency`, whose one evaluation is a sample already. The denoiser of any other model
    returns a mean over many images instead, which this sampler blurs or loses.
    """
    for sigma, s in pairwise(sigmas.cpu()):
        x0 = denoise(x, per_image(sigma, x), label)
        x = x0 + s * noise().to(x) if s > 0 else x0
        yield Step(s, x, x0)
