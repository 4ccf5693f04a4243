"""The variational lower bound (VLB), as a bound on -log2 p (Ho et al. 2020, Eq. 5) in bits/dim, term by term.

    L = KL(q(x_T | x0) || p(x_T))  +  sum over steps of KL(q(x_s | x_sigma, x0) || p(x_s | x_sigma))  -  log p(x0 | x_0)
        prior                         terms, and as the last of them the discretized decoder

The Kullback-Leibler divergence does not change when x is scaled, so on the axis of sigma the VLB is DDPM's own.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion.denoiser import Predict, Prediction, spread
from undiffuse.diffusion.reverse import LogVariance, last_log_variance, small
from undiffuse.utils.conditions import Condition
from undiffuse.utils.device import has_log_ndtr

HALF_BIN = 1 / 255
"""Half the distance between neighbors among the 256 pixel values in [-1, 1]."""

ERFC_COEFFICIENTS = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807),
    *(-0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223),
)
"""From the highest power of t = 1 / (1 + x / 2) down: ln(erfc(x) / t) + x^2 for x >= 0."""

LogMass = Callable[[Tensor, Tensor], Tensor]
"""(below, above) -> ln(Phi(above) - Phi(below)): the log mass of the unit normal distribution between the two."""


def exact(below: Tensor, above: Tensor) -> Tensor:
    """The exact mass, even far out, where Phi itself rounds to 1."""
    mirrored = below + above > 0
    low, high = torch.where(mirrored, -above, below), torch.where(mirrored, -below, above)
    log_low, log_high = log_ndtr(low), log_ndtr(high)
    return log_high + torch.log(-torch.expm1(log_low - log_high))


def log_ndtr(z: Tensor) -> Tensor:
    """ln Phi(z), on every device."""
    return torch.special.log_ndtr(z) if has_log_ndtr(z.device) else approximate_log_ndtr(z)


def approximate_log_ndtr(z: Tensor) -> Tensor:
    """ln Phi(z), as exact as float32: the error of erfc is below 1.2e-7 of it (Press et al. 1992, section 6.2)."""
    x = z.abs() / math.sqrt(2)
    t = 1 / (1 + x / 2)
    polynomial = torch.zeros_like(t)
    for coefficient in ERFC_COEFFICIENTS:
        polynomial = polynomial * t + coefficient
    log_tail = t.log() - x.square() + polynomial - math.log(2)  # ln Phi(-|z|)
    return torch.where(z < 0, log_tail, torch.log1p(-log_tail.exp()))


def approximate(below: Tensor, above: Tensor) -> Tensor:
    """The mass in Improved DDPM's released code: Page's (1977) Phi, good to 2e-4, and never less than 1e-12."""

    def Phi(z: Tensor) -> Tensor:
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2

    return (Phi(above) - Phi(below)).clamp(min=1e-12).log()


def _bits(nats: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def _kl(squared_distance: Tensor, log_variance_q: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(q || p) in nats of two normal distributions, given the squared distance of their means."""
    difference = log_variance_q - log_variance_p
    return (torch.expm1(difference) - difference + squared_distance * torch.exp(-log_variance_p)) / 2


def prior_bits(x0: Float[Tensor, "b c h w"], sigma: Float[Tensor, ""]) -> Float[Tensor, " b"]:
    """KL(q(x_sigma | x0) || N(0, 1 + sigma^2)) at the noisiest level: the information about x0 that is left there."""
    # x_sigma | x0 ~ N(x0, sigma^2).
    log_variance_q, log_variance_p = 2 * sigma.log(), torch.log1p(sigma**2)
    return _bits(_kl(x0.to(sigma) ** 2, log_variance_q, log_variance_p))


def decoder_bits(
    x0: Float[Tensor, "b c h w"], mean: Float[Tensor, "b c h w"], log_variance: Tensor, log_mass: LogMass = exact
) -> Float[Tensor, " b"]:
    """-log p(x0 | x_0): the normal distribution's mass in the bin of each pixel (Ho et al. 2020, Eq. 13)."""
    scale = torch.exp(-log_variance / 2)
    # The outermost bins reach to infinity.
    above = torch.where(x0 > 1 - HALF_BIN, math.inf, scale * (x0 + HALF_BIN - mean))
    below = torch.where(x0 < HALF_BIN - 1, -math.inf, scale * (x0 - HALF_BIN - mean))
    return _bits(-log_mass(below, above))


def term_bits(
    prediction: Prediction,
    x0: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    variance: LogVariance,
    last: float,
    log_mass: LogMass = exact,
) -> Float[Tensor, " b"]:
    """One term of the VLB: the step from sigma to s, or the decoder where s = 0; `last` as in `reverse.LogVariance`."""
    kl = step_bits(prediction, x0, sigma, s, variance, last)
    log_variance = variance(spread(sigma), spread(s), prediction.variance_fraction, last).to(prediction.x0)
    return torch.where(s > 0, kl, decoder_bits(x0, prediction.x0, log_variance, log_mass))


def step_bits(
    prediction: Prediction,
    x0: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    variance: LogVariance,
    last: float = -math.inf,
) -> Float[Tensor, " b"]:
    """KL(q(x_s | x_sigma, x0) || p(x_s | x_sigma)) of the step from sigma to s > 0."""
    sigma, s = spread(sigma), spread(s)
    log_variance = variance(sigma, s, prediction.variance_fraction, last).to(prediction.x0)
    # The posterior means of x0 and of the predicted x0, subtracted this way, keep the digits of their difference.
    difference = (1 - (s / sigma) ** 2).to(prediction.x0) * (x0 - prediction.x0)
    return _bits(_kl(difference**2, small(sigma, s, last=last).to(prediction.x0), log_variance.expand_as(x0)))


class Term(NamedTuple):
    """What one step adds to the VLB, each `(b,)`."""

    bits: Tensor
    x0_mse: Tensor
    """Mean squared error of the predicted x0."""
    eps_mse: Tensor
    """Mean squared error of the predicted noise."""


def terms(
    predict: Predict,
    x0: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Callable[[], Tensor],
    variance: LogVariance = small,
    log_mass: LogMass = exact,
) -> Iterator[Term]:
    """The terms of the VLB over falling `sigmas`, which end in 0, from the noisiest level down.

    `noise` is called once per term and returns unit normal noise of x0's shape. x0 holds pixels in [-1, 1].
    """
    x0 = x0.to(sigmas)
    last = last_log_variance(sigmas)
    for sigma, s in pairwise(sigmas):
        eps = noise().to(x0)
        x = x0 + sigma * eps
        levels = sigma.expand(len(x0)), s.expand(len(x0))
        prediction = predict(x, levels[0], label)
        bits = term_bits(prediction, x0, *levels, variance, last, log_mass)
        error = (prediction.x0 - x0).square().mean(dim=(1, 2, 3))
        yield Term(bits, x0_mse=error, eps_mse=error / sigma**2)


@dataclass(frozen=True)
class VLBProtocol:
    """How the VLB was computed, apart from what the caller added: clipping or guidance."""

    steps: int
    """Number of sigmas: the bound is looser with fewer than the model's discrete schedule has."""
    sigma_max: float
    variance: str
    decoder: str
    """The mass of a pixel's bin: exact, or approximate as in Improved DDPM's released code."""
    estimate: str = "VLB, one noise sample per term"


@dataclass(frozen=True)
class VLB:
    """The VLB in bits/dim for each image, and how it was computed."""

    prior: Float[Tensor, " b"]
    terms: Float[Tensor, "b n"]
    """From the noisiest level down; the last is the decoder."""
    x0_mse: Float[Tensor, "b n"]
    eps_mse: Float[Tensor, "b n"]
    protocol: VLBProtocol

    @property
    def total(self) -> Float[Tensor, " b"]:
        return self.prior + self.terms.sum(dim=1)

    def summary(self) -> dict[str, Any]:
        """The means over the images in bits/dim, and the protocol, as JSON has them."""
        total = self.total
        return {
            "bits_per_dim": total.mean().item(),
            "standard_error": (total.std() / math.sqrt(len(total))).item() if len(total) > 1 else None,
            "prior": self.prior.mean().item(),
            "decoder": self.terms[:, -1].mean().item(),
            "images": len(total),
            "protocol": asdict(self.protocol),
        }


def vlb(
    predict: Predict,
    x0: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Callable[[], Tensor],
    variance: LogVariance = small,
    log_mass: LogMass = exact,
    watch: Callable[[Iterator[Term]], Iterable[Term]] = iter,
) -> VLB:
    """The whole VLB; arguments as in `terms`, whose terms pass through `watch`, perhaps a progress bar.

    Raises:
        ValueError: there are fewer than two steps, or `variance` is learned and the model did not learn it.
    """
    steps = watch(terms(predict, x0, sigmas, label, noise=noise, variance=variance, log_mass=log_mass))
    bits, x0_mse, eps_mse = (torch.stack(columns, dim=1) for columns in zip(*steps, strict=True))
    protocol = VLBProtocol(len(sigmas) - 1, float(sigmas[0]), _name(variance), _name(log_mass))
    return VLB(prior_bits(x0, sigmas[0]), bits, x0_mse, eps_mse, protocol)


def _name(function: Callable) -> str:
    return getattr(function, "__name__", str(function))
