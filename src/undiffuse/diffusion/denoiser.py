"""The denoiser D(x; sigma, label) -> x0, the one thing a sampler knows, and the one loss that trains it."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from undiffuse.diffusion.parametrization import Parametrization

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""F(c_in * x, c_noise, label): the trained function, of the same shape as x."""

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""D(x, sigma, label) -> x0, with x `(b, c, h, w)`, sigma `(b,)` and label `(b,)` integers or None."""

NO_LABEL = -1
"""The label that says nothing: what classifier-free guidance compares with (Ho & Salimans 2022)."""


def denoiser(network: Network, parametrization: Parametrization, dtype: torch.dtype = torch.float32) -> Denoise:
    """The denoiser of a network (Karras et al. 2022, Eq. 7). The network computes in `dtype`, the rest in x's."""

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        c_skip, c_out, c_in, c_noise = parametrization(sigma)
        F = network((_spread(c_in) * x).to(dtype), c_noise.to(dtype), label)
        return _spread(c_skip) * x + _spread(c_out) * F.to(x.dtype)

    return denoise


def denoising_loss(
    network: Network,
    parametrization: Parametrization,
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, " b"],
    label: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, " b"]:
    """The mean squared error of the network's output, one number an image.

    The target (x0 - c_skip x) / c_out makes this L_simple (Ho et al. 2020, Eq. 14) for eps, the v loss for v, flow
    matching for flow, and EDM's weighted loss (Karras et al. 2022, Eq. 8) for EDM.
    """
    x = x0 + _spread(sigma).to(x0) * eps
    # The coefficients keep sigma's precision (float64 in training): only their products are rounded to x's.
    c_skip, c_out, c_in, c_noise = (_spread(c) if i < 3 else c for i, c in enumerate(parametrization(sigma)))
    target = (x0 - c_skip * x) / c_out
    F = network((c_in * x).to(x0.dtype), c_noise.to(x0.dtype), label)
    return (F.to(x0.dtype) - target.to(x0.dtype)).square().mean(dim=(1, 2, 3))


def guided(denoise: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6, on x0): 1 follows the label, more exaggerates it."""

    def guided_denoise(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        if label is None or scale == 1:
            return denoise(x, sigma, label)
        labels = torch.cat([label, torch.full_like(label, NO_LABEL)])
        with_label, without = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), labels).chunk(2)
        return without + scale * (with_label - without)

    return guided_denoise


def clipped(denoise: Denoise) -> Denoise:
    """The estimate of x0 held in the pixels' range [-1, 1], as DDPM samples (Ho et al. 2020, released code)."""
    return lambda x, sigma, label=None: denoise(x, sigma, label).clamp(-1, 1)


def _spread(per_image: Tensor) -> Tensor:
    return per_image.view(-1, 1, 1, 1)
