"""The denoiser D(x; sigma, label) -> x0, all that a sampler needs, and the predictor that it is taken from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.diffusion.parametrization import Parametrization
from undiffuse.utils.conditions import Condition

Network = Callable[[Tensor, Tensor, Any], Tensor]
"""F(c_in * x, c_noise, label): the trained function. Its output has x's shape, or twice x's channels where the
variance is learned: see `Prediction`."""

Denoise = Callable[[Tensor, Tensor, Any], Tensor]
"""D(x, sigma, label) -> x0, with x `(b, c, h, w)`, sigma `(b,)` and label `(b,)` integers, `Conditions` or None."""


class Prediction(NamedTuple):
    """Everything that a network predicts about a noisy image."""

    x0: Tensor
    """The clean image, (b, c, h, w)."""
    variance_fraction: Tensor | None
    """Where the variance of the reverse step lies between small (0) and large (1) on a log scale, for every pixel; None
    unless it is learned (Nichol & Dhariwal 2021, section 3.1). Only ancestral sampling and the likelihood use it."""


Predict = Callable[[Tensor, Tensor, Any], Prediction]
"""(x, sigma, label) -> Prediction, with shapes as in `Denoise`. Guidance and clipping wrap it."""


def predictor(network: Network, parametrization: Parametrization, dtype: torch.dtype = torch.float32) -> Predict:
    """What a network predicts (Karras et al. 2022, Eq. 7). The network computes in `dtype`, the rest in x's dtype."""

    def predict(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
        c_skip, c_out, c_in, c_noise = parametrization(sigma)
        F, variance_fraction = split_output(network((spread(c_in) * x).to(dtype), c_noise.to(dtype), label), x)
        return Prediction(spread(c_skip) * x + spread(c_out) * F, variance_fraction)

    return predict


def split_output(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """A network's output for `x` as F and, where it has twice x's channels, the variance fraction; in x's dtype."""
    output = output.to(x.dtype)
    if output.shape[1] == x.shape[1]:
        return output, None
    F, v = output.chunk(2, dim=1)
    return F, (v + 1) / 2


def denoiser(predict: Predict) -> Denoise:
    """The denoiser of a predictor: the clean image only."""
    return lambda x, sigma, label=None: predict(x, sigma, label).x0


def without_variance(denoise: Denoise) -> Predict:
    """A denoiser as a predictor without a learned variance."""
    return lambda x, sigma, label=None: Prediction(denoise(x, sigma, label), None)


def clipped(predict: Predict) -> Predict:
    """Clips the predicted x0 to the pixels' range [-1, 1], as DDPM does in sampling (Ho et al. 2020, released code)."""

    def clipped_predict(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
        x0, variance_fraction = predict(x, sigma, label)
        return Prediction(x0.clamp(-1, 1), variance_fraction)

    return clipped_predict


def per_image(sigma: Tensor, x: Tensor) -> Tensor:
    """One noise level for every image, `(b,)`, where x is: filled in there, since a copy would wait for a GPU."""
    return sigma.new_full((), float(sigma), device=x.device).expand(len(x))


def spread(numbers: Tensor) -> Tensor:
    """One number per image, `(b,)`, in the shape that multiplies images `(b, c, h, w)`."""
    return numbers.view(-1, 1, 1, 1)
