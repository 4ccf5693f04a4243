"""How far a value recorded in float32 may be from the exact one, derived from the terms that it was computed from.

Everything is on DDPM's own scale: x_t = x / sqrt(1 + sigma^2), with the noise levels sigma and s of a step on ours.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from undiffuse.diffusion import likelihood

EPS = torch.finfo(torch.float32).eps
FACTOR = 4.0
"""For about eight roundings of up to EPS / 2: of x_t, the network's output, a coefficient, a product and a sum."""


def rounding(*terms: Tensor) -> Tensor:
    """The error that float32 may leave in a sum of such terms, (b, 1, 1, 1).

    It is FACTOR eps of the greatest magnitudes in each image. Where terms cancel, this is far more than eps of the
    result: at a sigma of 2e4, x0 = sqrt(1 + sigma^2) x_t - sigma eps has an error of about 0.01.
    """
    return FACTOR * EPS * torch.stack([term.abs().amax(dim=(1, 2, 3), keepdim=True) for term in terms]).sum(dim=0)


def of_mse(difference: Tensor, error: Tensor) -> Tensor:
    """The error of the mean square of a difference whose own error is `error`."""
    square = difference.square() + 2 * difference.abs() * error + error.square()
    return square.mean(dim=(1, 2, 3)) * (1 + FACTOR * EPS) - difference.square().mean(dim=(1, 2, 3))


def of_prior(x0: Tensor, sigma: Tensor) -> Tensor:
    """The error of the prior's bits: KL = (-1 - ln v + v + mean^2) / 2 for v = 1 - alpha bar close to 1."""
    v, mean = sigma**2 / (1 + sigma**2), x0 / torch.sqrt(1 + sigma**2)
    terms = 1 - v.log() + v + mean.square()
    return FACTOR * EPS * terms.mean(dim=(1, 2, 3)) / 2 / math.log(2)


@dataclass(frozen=True)
class ReverseStep:
    """The exact quantities of a reverse step, and the errors that float32 may leave in them."""

    x0: Tensor
    eps: Tensor
    sigma: Tensor
    """(b, 1, 1, 1), as is s."""
    s: Tensor
    output: Tensor
    """Of the network."""
    is_eps: bool
    """Whether that predicts eps, or else x0."""
    predicted_x0: Tensor
    """Perhaps clipped, which makes no error greater."""
    log_variance: Tensor
    """Of the model's reverse step, and below what it lies between."""
    small: Tensor
    large: Tensor

    @property
    def x_t(self) -> Tensor:
        return (self.x0 + self.sigma * self.eps) / torch.sqrt(1 + self.sigma**2)

    @property
    def coefficients(self) -> tuple[Tensor, Tensor]:
        """c1 and c2 of the posterior mean c1 x0 + c2 x_t."""
        kept, scale = (self.s / self.sigma) ** 2, torch.sqrt(1 + self.s**2)
        return (1 - kept) / scale, kept * torch.sqrt(1 + self.sigma**2) / scale

    def of_output(self) -> Tensor:
        return rounding(self.x_t, self.output)

    def of_x0(self) -> Tensor:
        """The error of the predicted x0."""
        if self.is_eps:
            return rounding(torch.sqrt(1 + self.sigma**2) * self.x_t, self.sigma * self.output)
        return self.of_output()

    def of_eps(self) -> Tensor:
        """The error of the predicted eps, (sqrt(1 + sigma^2) x_t - predicted x0) / sigma."""
        return (rounding(torch.sqrt(1 + self.sigma**2) * self.x_t, self.predicted_x0) + self.of_x0()) / self.sigma

    def of_mean(self) -> Tensor:
        c1, c2 = self.coefficients
        return c1 * self.of_x0() + rounding(c1 * self.predicted_x0, c2 * self.x_t)

    def of_log_variance(self) -> Tensor:
        """Its fraction between small and large, (sin(3 x_t) + 1) / 2, has the error of 3/2 x_t."""
        return rounding(self.small, self.large) + (self.large - self.small).abs() * 1.5 * rounding(self.x_t)

    def of_bits(self) -> Tensor:
        """The error of the term of the VLB, (b,)."""
        return torch.where(self.s.flatten() > 0, self._of_kl(), self._of_decoder())

    def _of_kl(self) -> Tensor:
        log_p, log_q = self.log_variance, self.small
        c1, c2 = self.coefficients
        difference = c1 * (self.x0 - self.predicted_x0)
        error = c1 * self.of_x0() + rounding(c1 * self.x0, c1 * self.predicted_x0, c2 * self.x_t)
        of_square = (2 * difference.abs() * error + error.square()) * torch.exp(-log_p)
        by_variance = difference.square() * torch.exp(-log_p) + torch.exp(log_q - log_p) + 1
        own = FACTOR * EPS * (1 + log_p.abs() + log_q.abs() + by_variance)
        nats = (of_square + by_variance * self.of_log_variance() + own) / 2
        return nats.expand_as(self.x0).mean(dim=(1, 2, 3)) / math.log(2)

    def _of_decoder(self) -> Tensor:
        scale = torch.exp(-self.log_variance / 2)
        above = scale * (self.x0 + likelihood.HALF_BIN - self.predicted_x0)
        below = scale * (self.x0 - likelihood.HALF_BIN - self.predicted_x0)
        shift = scale * (self.of_mean() + rounding(self.x0, self.predicted_x0))
        shift = shift + above.abs() * (self.of_log_variance() / 2 + FACTOR * EPS)
        above = torch.where(self.x0 > 1 - likelihood.HALF_BIN, math.inf, above)
        below = torch.where(self.x0 < likelihood.HALF_BIN - 1, -math.inf, below)
        masses = [
            likelihood.approximate(below + by, above + by).exp() for by in (-shift, torch.zeros_like(shift), shift)
        ]
        # Phi is rounded near 0 and 1: some mass may be lost, or appear, but not where both ends are exactly 0 or 1.
        far = torch.full_like(above, math.inf)
        tail = torch.where(below + above > 0, likelihood.approximate(below, far), likelihood.approximate(-far, above))
        appears = torch.where(tail.exp() < EPS / 16, 0.0, FACTOR * EPS / 2)
        exact = masses[1].log2()
        most = (torch.stack(masses).amax(dim=0) + appears).log2()
        least = (torch.stack(masses).amin(dim=0) - FACTOR * EPS / 2).clamp(min=1e-12).log2()
        error = torch.maximum(most - exact, exact - least) + FACTOR * EPS * exact.abs()
        return error.mean(dim=(1, 2, 3))
