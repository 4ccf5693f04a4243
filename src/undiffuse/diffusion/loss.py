"""What training minimizes: the one loss, two that learn the variance as well, and that of consistency tuning."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion import likelihood, reverse
from undiffuse.diffusion.consistency import LowerSigma, consistency_loss
from undiffuse.diffusion.denoiser import Network, Prediction, split_output, spread
from undiffuse.diffusion.noise import beside
from undiffuse.diffusion.parametrization import Parametrization
from undiffuse.utils.conditions import Condition

Weight = Callable[[Tensor], Tensor]
"""sigma -> the weight of |D(x; sigma) - x0|^2, the denoiser's squared error, each `(b,)`."""

Loss = Callable[..., Tensor]
"""(network, x0, eps, sigma, label) -> one number per image, `(b,)`."""

VLB_WEIGHT = 0.001
"""lambda, the weight of L_vlb in L_hybrid (Nichol & Dhariwal 2021, section 3.1)."""


def denoising_loss(
    network: Network,
    parametrization: Parametrization,
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Condition = None,
    weight: Weight | None = None,
) -> Float[Tensor, " b"]:
    """The mean squared error of the network's output, one number per image.

    The target (x0 - c_skip x) / c_out makes this L_simple (Ho et al. 2020, Eq. 14) for eps, the v loss for v, flow
    matching for flow, and EDM's weighted loss (Karras et al. 2022, Eq. 8) for EDM. On the denoiser's error that is a
    weight of 1 / c_out^2, which `weight` replaces.
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
    sigmas: Float[Tensor, " T"],
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Condition = None,
    log_mass: likelihood.LogMass = likelihood.exact,
) -> Float[Tensor, " b"]:
    """L_hybrid = L_simple + 0.001 L_vlb, in bits; L_vlb trains the variance only (Nichol & Dhariwal 2021, 3.1).

    `sigmas` is the discrete schedule, rising, and `sigma` consists of some of its levels.
    """
    noisy = _noisy(network, parametrization, x0, eps, sigma, label)
    prediction = noisy.prediction()
    frozen = Prediction(prediction.x0.detach(), prediction.variance_fraction)
    return noisy.mse + VLB_WEIGHT * len(sigmas) * _bits(frozen, x0, sigma, sigmas, log_mass)


def vlb_loss(
    network: Network,
    parametrization: Parametrization,
    sigmas: Float[Tensor, " T"],
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Condition = None,
    log_mass: likelihood.LogMass = likelihood.exact,
) -> Float[Tensor, " b"]:
    """L_vlb: T times a VLB term, in bits/dim (Nichol & Dhariwal 2021, Eq. 4 to 7). Arguments as in `hybrid_loss`."""
    noisy = _noisy(network, parametrization, x0, eps, sigma, label)
    return len(sigmas) * _bits(noisy.prediction(), x0, sigma, sigmas, log_mass)


@dataclass(frozen=True)
class _Noisy:
    """A noised batch and the network's output for it."""

    mse: Tensor
    """The mean squared error of the network's output, (b,)."""
    x: Tensor
    F: Tensor
    variance_fraction: Tensor | None
    c_skip: Tensor
    c_out: Tensor

    def prediction(self) -> Prediction:
        return Prediction((self.c_skip * self.x + self.c_out * self.F).to(self.x), self.variance_fraction)


def _noisy(
    network: Network, parametrization: Parametrization, x0: Tensor, eps: Tensor, sigma: Tensor, label: Condition
) -> _Noisy:
    x = x0 + spread(sigma).to(x0) * eps
    # The coefficients keep sigma's precision (float64 in training): only their products are rounded to x's.
    coefficients = parametrization(sigma)
    c_skip, c_out, c_in = (spread(c) for c in coefficients[:3])
    target = (x0 - c_skip * x) / c_out
    F, fraction = split_output(network((c_in * x).to(x0.dtype), coefficients.c_noise.to(x0.dtype), label), x0)
    mse = (F - target.to(x0.dtype)).square().mean(dim=(1, 2, 3))
    return _Noisy(mse, x, F, fraction, c_skip, c_out)


def _bits(prediction: Prediction, x0: Tensor, sigma: Tensor, sigmas: Tensor, log_mass: likelihood.LogMass) -> Tensor:
    """The term of the VLB of each image at its level of the discrete schedule."""
    levels = beside(sigmas, sigma)
    index = torch.searchsorted(levels, sigma)
    s = torch.where(index > 0, levels[index - 1], 0.0)
    last = reverse.last_log_variance(torch.cat([sigmas[:2].flip(0), sigmas.new_zeros(1)]))
    return likelihood.term_bits(prediction, x0, sigma, s, reverse.learned, last, log_mass)


WEIGHTS: dict[str, Callable[[float, float], Weight | None]] = {
    "none": lambda gamma, sigma_data: None,  # As the parametrization has it.
    "min_snr": lambda gamma, sigma_data: min_snr(gamma),
    "edm": lambda gamma, sigma_data: edm_weight(sigma_data),
}
"""Keyed by the name used in config.json: (min_snr_gamma, sigma_data) -> the weight."""


@dataclass(frozen=True)
class Objective:
    make: Callable[[Parametrization, Weight | None, Tensor, LowerSigma], Loss]
    """(parametrization, weight, rising sigmas of the discrete schedule, t -> r of consistency's pairs) -> the loss."""
    about: str
    learns_variance: bool = False
    jumps: bool = False
    """Whether D(x, sigma) becomes a sample rather than the mean of all clean images behind x."""


OBJECTIVES: dict[str, Objective] = {
    "simple": Objective(
        lambda parametrization, weight, sigmas, lower: partial(
            denoising_loss, parametrization=parametrization, weight=weight
        ),
        "the mean squared error of the network's output",
    ),
    "hybrid": Objective(
        lambda parametrization, weight, sigmas, lower: partial(
            hybrid_loss, parametrization=parametrization, sigmas=sigmas
        ),
        "simple, and the VLB to learn the variance (L_hybrid)",
        learns_variance=True,
    ),
    "vlb": Objective(
        lambda parametrization, weight, sigmas, lower: partial(
            vlb_loss, parametrization=parametrization, sigmas=sigmas
        ),
        "the VLB only (L_vlb)",
        learns_variance=True,
    ),
    "consistency": Objective(
        lambda parametrization, weight, sigmas, lower: partial(
            consistency_loss, parametrization=parametrization, lower=lower
        ),
        "the difference of two points of a path, for one or two steps (see `undiffuse distill`)",
        jumps=True,
    ),
}
"""Keyed by the name used in config.json."""
