"""Consistency tuning: from a denoiser to a model that jumps from any noise level to a clean image at once.

Easy consistency tuning (Geng et al. 2024, "Consistency models made easy"). The denoiser's loss asks for the mean of all
clean images behind x. This one asks that two points of one path, x0 + t eps and x0 + r eps with r < t, lead to the same
image; with r = 0, where the image is known, it is a denoiser's loss again. As training goes on, r rises towards t.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion.denoiser import Network, denoiser, predictor, spread
from undiffuse.diffusion.parametrization import Parametrization
from undiffuse.utils.conditions import Condition

LowerSigma = Callable[[Tensor], Tensor]
"""t -> r, the lower of the two noise levels of a pair, each `(b,)`; 0 where the clean image itself is the target."""

SIGMA_DATA = 0.5
"""The released code's constants are noise levels for images of this standard deviation; others scale them."""

SIGMA_MEAN, SIGMA_STD = -1.1, 2.0
"""Of ln t in training (P_mean and P_std of the released code): wider than EDM's, since large steps begin high up."""

MIDDLE_SIGMA = 0.821
"""Where sampling in two steps adds noise again (Song et al. 2023 for CIFAR-10; Geng et al. 2024 use it too)."""

BETWEEN_STD = 1.2
"""Standard deviation of ln sigma of the levels between the first and 0 for more than two steps."""

HUBER_SCALE = 0.00054
"""c / sqrt(dimensions) of the pseudo-Huber metric (Song & Dhariwal 2024, section 3.3)."""


def lower_sigma(
    t: Float[Tensor, " b"], q: float, stage: int, sigma_data: float = SIGMA_DATA, k: float = 8.0
) -> Float[Tensor, " b"]:
    """r = max(0, t (1 - n(t) / q^(stage + 1))) with n(t) = 1 + k sigmoid(-t) (Geng et al. 2024, section 3.3).

    For t far above the data's own deviation n is 1; for low t, where the paths bend, the pairs lie further apart.
    """
    n = 1 + k * torch.sigmoid(-t * SIGMA_DATA / sigma_data)
    return (t * (1 - n / q ** (stage + 1))).clamp(min=0)


def consistency_loss(
    network: Network,
    parametrization: Parametrization,
    lower: LowerSigma,
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Condition = None,
) -> Float[Tensor, " b"]:
    """(sqrt(|D_t - D_r|^2 + c^2) - c) / (t - r), one number per image, with t = `sigma` and r = `lower(sigma)`.

    Both images of a pair have the same noise and the same dropout. D_r is a target, without gradient, from the same
    weights, not from their EMA (Geng et al. 2024, Algorithm 1). c keeps the gradient finite where the two agree.
    """
    denoise = denoiser(predictor(network, parametrization, x0.dtype))
    t, r = sigma, lower(sigma)
    devices = [] if x0.device.type == "cpu" else [x0.device]  # Whose generator dropout uses, besides the CPU's.
    with torch.random.fork_rng(devices, device_type=x0.device.type), torch.no_grad():
        # D_t draws the same dropout masks again.
        known = r == 0
        D_r = _denoised(denoise, x0, eps, torch.where(known, t, r), label)
        target = torch.where(spread(known), x0, D_r)
    D_t = _denoised(denoise, x0, eps, t, label)
    c = HUBER_SCALE * math.sqrt(x0[0].numel())
    distance = torch.sqrt((D_t - target).square().sum(dim=(1, 2, 3)) + c**2) - c
    return distance / (t - r).to(distance)


def _denoised(
    denoise: Callable[..., Tensor], x0: Tensor, eps: Tensor, sigma: Tensor, label: Condition
) -> Float[Tensor, "b c h w"]:
    # The coefficients keep sigma's precision (float64 in training): late pairs are close to each other.
    return denoise(x0.to(sigma) + spread(sigma) * eps, sigma, label)


def stage_at(progress: float, stages: int) -> int:
    """The stage s, from 0 to `stages` - 1, when this fraction of the budget is spent: all are equally long."""
    return min(int(progress * stages), stages - 1)


def sampling_sigmas(steps: int, sigma_max: float, sigma_data: float = SIGMA_DATA) -> Float[Tensor, " n"]:
    """The noise levels of `samplers.consistency`: `steps` of them from `sigma_max` down, then 0, float64.

    Two steps go through `MIDDLE_SIGMA`; more divide a log-normal distribution around it into equally likely parts.

    Raises:
        ValueError: `steps` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"{steps} sampling steps are too few: take at least 1.")
    middle = min(MIDDLE_SIGMA * sigma_data / SIGMA_DATA, sigma_max / 2)
    z = torch.special.ndtri(1 - torch.arange(1, steps, dtype=torch.float64) / steps)
    highest = 0.9 * math.log(sigma_max / middle)  # Of ln(sigma / middle), however many steps there are.
    scale = min(BETWEEN_STD, highest / float(z[0])) if steps > 2 else 1.0
    return torch.cat([z.new_tensor([sigma_max]), middle * torch.exp(scale * z), z.new_zeros(1)])
