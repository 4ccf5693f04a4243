"""What the network predicts, as four functions of sigma.

A denoiser is D(x; sigma) = c_skip * x + c_out * F(c_in * x, c_noise) (Karras et al. 2022, Eq. 7). Every published
choice of F's target (eps, x0, v, a flow's velocity, EDM's) is one row of coefficients; nothing else knows which.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion.noise import beside


class Coefficients(NamedTuple):
    """One number an image each, of sigma's shape and dtype."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor
    """The noise level as the network is given it."""


NoiseConditioning = Callable[[Tensor], Tensor]
"""sigma -> c_noise, each `(b,)`."""

Parametrization = Callable[[Tensor], Coefficients]
"""sigma `(b,)` -> the coefficients at it."""


def discrete_index(sigmas: Float[Tensor, " T"]) -> NoiseConditioning:
    """The index t in the discrete schedule of rising `sigmas`; between two of them, linear in ln sigma."""
    levels = sigmas.log()

    def c_noise(sigma: Tensor) -> Tensor:
        table = beside(levels, sigma)
        at = sigma.log().clamp(table[0], table[-1])
        above = torch.searchsorted(table, at).clamp(min=1)
        below = above - 1
        return below + (at - table[below]) / (table[above] - table[below])

    return c_noise


def eps(c_noise: NoiseConditioning) -> Parametrization:
    """F predicts the noise (Ho et al. 2020, Eq. 14)."""
    return lambda sigma: Coefficients(
        c_skip=torch.ones_like(sigma), c_out=-sigma, c_in=1 / torch.sqrt(1 + sigma**2), c_noise=c_noise(sigma)
    )


def x0(c_noise: NoiseConditioning) -> Parametrization:
    """F predicts the clean image."""
    return lambda sigma: Coefficients(
        c_skip=torch.zeros_like(sigma),
        c_out=torch.ones_like(sigma),
        c_in=1 / torch.sqrt(1 + sigma**2),
        c_noise=c_noise(sigma),
    )


def v(c_noise: NoiseConditioning) -> Parametrization:
    """F predicts v = (eps - sigma * x0) / sqrt(1 + sigma^2) (Salimans & Ho 2022, section 4)."""
    return lambda sigma: Coefficients(
        c_skip=1 / (1 + sigma**2),
        c_out=-sigma / torch.sqrt(1 + sigma**2),
        c_in=1 / torch.sqrt(1 + sigma**2),
        c_noise=c_noise(sigma),
    )


def flow(sigma: Tensor) -> Coefficients:
    """F predicts the velocity eps - x0 of the straight path (Lipman et al. 2023), with time t = sigma / (1 + sigma)."""
    return Coefficients(
        c_skip=1 / (1 + sigma), c_out=-sigma / (1 + sigma), c_in=1 / (1 + sigma), c_noise=sigma / (1 + sigma)
    )


def edm(sigma_data: float) -> Parametrization:
    """Unit variance in and out of F, for data of standard deviation `sigma_data` (Karras et al. 2022, Table 1)."""

    def at(sigma: Tensor) -> Coefficients:
        variance = sigma**2 + sigma_data**2
        return Coefficients(
            c_skip=sigma_data**2 / variance,
            c_out=sigma * sigma_data / torch.sqrt(variance),
            c_in=1 / torch.sqrt(variance),
            c_noise=sigma.log() / 4,
        )

    return at


@dataclass(frozen=True)
class ParametrizationRow:
    make: Callable[[Tensor, float], Parametrization]
    """(rising sigmas of the discrete schedule, sigma_data) -> the parametrization."""
    about: str
    """What the network predicts, in one line for the docs."""


PARAMETRIZATIONS: dict[str, ParametrizationRow] = {
    "eps": ParametrizationRow(lambda sigmas, sigma_data: eps(discrete_index(sigmas)), "the noise (DDPM)"),
    "x0": ParametrizationRow(lambda sigmas, sigma_data: x0(discrete_index(sigmas)), "the clean image"),
    "v": ParametrizationRow(
        lambda sigmas, sigma_data: v(discrete_index(sigmas)), "the velocity of progressive distillation"
    ),
    "flow": ParametrizationRow(lambda sigmas, sigma_data: flow, "the velocity of flow matching"),
    "edm": ParametrizationRow(
        lambda sigmas, sigma_data: edm(sigma_data), "a mix of image and noise that has unit variance (EDM)"
    ),
}
"""Keyed by the name used in config.json: to add one, write its function and a row. docs/maths.md derives each."""
