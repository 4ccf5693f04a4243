"""What training minimizes: the one loss, and its two companions that learn the variance too."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from undiffuse.diffusion import likelihood, reverse
from undiffuse.diffusion.denoiser import Estimate, Network, outputs, spread
from undiffuse.diffusion.parametrization import Parametrization

Weight = Callable[[Tensor], Tensor]
"""sigma -> the weight of |D(x; sigma) - x0|^2, the denoiser's squared error, each `(b,)`."""

Loss = Callable[..., Tensor]
"""(network, x0, eps, sigma, label) -> one number an image, `(b,)`."""

VLB_WEIGHT = 0.001
"""lambda, the bound's share in L_hybrid (Nichol & Dhariwal 2021, section 3.1)."""


def denoising_loss(
    network: Network,
    parametrization: Parametrization,
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Int[Tensor, " b"] | None = None,
    weight: Weight | None = None,
) -> Float[Tensor, " b"]:
    """The mean squared error of the network's output, one number an image.

    The target (x0 - c_skip x) / c_out makes this L_simple (Ho et al. 2020, Eq. 14) for eps, the v loss for v, flow
    matching for flow, and EDM's weighted loss (Karras et al. 2022, Eq. 8) for EDM. `weight` replaces the weight
    1 / c_out^2 that it thereby has on the denoiser's error.
    """
    mse = _noisy(network, parametrization, x0, eps, sigma, label).mse
    if weight is None:
        return mse
    return (weight(sigma) * parametrization(sigma).c_out ** 2).to(mse) * mse


def min_snr(gamma: float) -> Weight:
    """min(SNR, gamma) with SNR = 1 / sigma^2: low noise counts for no more than `gamma` (Hang et al. 2023)."""
    return lambda sigma: (1 / sigma**2).clamp(max=gamma)


def edm_weight(sigma_data: float) -> Weight:
    """lambda(sigma) of Karras et al. 2022, Table 1, for other parametrizations: EDM's own has it already."""
    return lambda sigma: (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def hybrid_loss(
    network: Network,
    parametrization: Parametrization,
    chain: Float[Tensor, " T"],
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Int[Tensor, " b"] | None = None,
    log_mass: likelihood.LogMass = likelihood.exact,
) -> Float[Tensor, " b"]:
    """L_hybrid = L_simple + 0.001 L_vlb, in bits, where L_vlb moves the variance only (Nichol & Dhariwal 2021, 3.1)."""
    noisy = _noisy(network, parametrization, x0, eps, sigma, label)
    estimate = noisy.estimate()
    frozen = Estimate(estimate.x0.detach(), estimate.fraction)
    return noisy.mse + VLB_WEIGHT * len(chain) * _bits(frozen, x0, sigma, chain, log_mass)


def vlb_loss(
    network: Network,
    parametrization: Parametrization,
    chain: Float[Tensor, " T"],
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Int[Tensor, " b"] | None = None,
    log_mass: likelihood.LogMass = likelihood.exact,
) -> Float[Tensor, " b"]:
    """L_vlb: T times one term of the bound, in bits/dim (Nichol & Dhariwal 2021, Eq. 4 to 7)."""
    noisy = _noisy(network, parametrization, x0, eps, sigma, label)
    return len(chain) * _bits(noisy.estimate(), x0, sigma, chain, log_mass)


@dataclass(frozen=True)
class _Noisy:
    """A noised batch and what the network said of it."""

    mse: Tensor
    """Of the network's output, (b,)."""
    x: Tensor
    F: Tensor
    fraction: Tensor | None
    c_skip: Tensor
    c_out: Tensor

    def estimate(self) -> Estimate:
        return Estimate((self.c_skip * self.x + self.c_out * self.F).to(self.x), self.fraction)


def _noisy(
    network: Network, parametrization: Parametrization, x0: Tensor, eps: Tensor, sigma: Tensor, label: Tensor | None
) -> _Noisy:
    x = x0 + spread(sigma).to(x0) * eps
    # The coefficients keep sigma's precision (float64 in training): only their products are rounded to x's.
    coefficients = parametrization(sigma)
    c_skip, c_out, c_in = (spread(c) for c in coefficients[:3])
    target = (x0 - c_skip * x) / c_out
    F, fraction = outputs(network((c_in * x).to(x0.dtype), coefficients.c_noise.to(x0.dtype), label), x0)
    mse = (F - target.to(x0.dtype)).square().mean(dim=(1, 2, 3))
    return _Noisy(mse, x, F, fraction, c_skip, c_out)


def _bits(estimate: Estimate, x0: Tensor, sigma: Tensor, chain: Tensor, log_mass: likelihood.LogMass) -> Tensor:
    """The bound's term for each image at its level of the chain."""
    levels = chain.to(sigma)
    index = torch.searchsorted(levels, sigma)
    s = torch.where(index > 0, levels[index - 1], 0.0)
    last = reverse.last_log_variance(torch.cat([chain[:2].flip(0), chain.new_zeros(1)]))
    return likelihood.term_bits(estimate, x0, sigma, s, reverse.learned, last, log_mass)
