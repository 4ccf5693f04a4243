"""The denoiser D(x; sigma, label) -> x0, the one thing a sampler knows, and the estimator it is taken from."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.diffusion.parametrization import Parametrization

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""F(c_in * x, c_noise, label): the trained function, of x's shape, or with twice its channels: see `Estimate`."""

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""D(x, sigma, label) -> x0, with x `(b, c, h, w)`, sigma `(b,)` and label `(b,)` integers or None."""

NO_LABEL = -1
"""The label that says nothing: what classifier-free guidance compares with (Ho & Salimans 2022)."""


class Estimate(NamedTuple):
    """All that a network says about a noisy image."""

    x0: Tensor
    """The clean image, (b, c, h, w)."""
    fraction: Tensor | None
    """Where a reverse step's variance lies between small (0) and large (1), in logs, for every pixel; None unless it
    is learned (Nichol & Dhariwal 2021, section 3.1). Only the ancestral sampler and the likelihood look at it."""


Estimator = Callable[[Tensor, Tensor, Tensor | None], Estimate]
"""(x, sigma, label) -> Estimate, with shapes as in `Denoise`. Guidance and clipping wrap it."""


def estimator(network: Network, parametrization: Parametrization, dtype: torch.dtype = torch.float32) -> Estimator:
    """The estimator of a network (Karras et al. 2022, Eq. 7). The network computes in `dtype`, the rest in x's."""

    def estimate(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Estimate:
        c_skip, c_out, c_in, c_noise = parametrization(sigma)
        F, fraction = outputs(network((spread(c_in) * x).to(dtype), c_noise.to(dtype), label), x)
        return Estimate(spread(c_skip) * x + spread(c_out) * F, fraction)

    return estimate


def outputs(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """A network's output for `x` as F and, where it has twice x's channels, the variance's fraction; in x's dtype."""
    output = output.to(x.dtype)
    if output.shape[1] == x.shape[1]:
        return output, None
    F, v = output.chunk(2, dim=1)
    return F, (v + 1) / 2


def denoiser(estimate: Estimator) -> Denoise:
    """The denoiser alone of an estimator."""
    return lambda x, sigma, label=None: estimate(x, sigma, label).x0


def without_variance(denoise: Denoise) -> Estimator:
    """A denoiser as an estimator that has learned no variance."""
    return lambda x, sigma, label=None: Estimate(denoise(x, sigma, label), None)


def guided(estimate: Estimator, scale: float) -> Estimator:
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6, on x0): 1 follows the label, more exaggerates it."""

    def guided_estimate(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Estimate:
        if label is None or scale == 1:
            return estimate(x, sigma, label)
        labels = torch.cat([label, torch.full_like(label, NO_LABEL)])
        both = estimate(torch.cat([x, x]), torch.cat([sigma, sigma]), labels)
        with_label, without = both.x0.chunk(2)
        fraction = None if both.fraction is None else both.fraction.chunk(2)[0]
        return Estimate(without + scale * (with_label - without), fraction)

    return guided_estimate


def clipped(estimate: Estimator) -> Estimator:
    """The estimate of x0 held in the pixels' range [-1, 1], as DDPM samples (Ho et al. 2020, released code)."""

    def clipped_estimate(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Estimate:
        x0, fraction = estimate(x, sigma, label)
        return Estimate(x0.clamp(-1, 1), fraction)

    return clipped_estimate


def spread(per_image: Tensor) -> Tensor:
    """One number an image `(b,)`, to be multiplied with images `(b, c, h, w)`."""
    return per_image.view(-1, 1, 1, 1)
