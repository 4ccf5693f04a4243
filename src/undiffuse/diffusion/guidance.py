"""Guidance: two predictions of the clean image, and how far to go from the weaker one beyond the better one."""

import math

import torch
from torch import Tensor

from undiffuse.diffusion.denoiser import Predict, Prediction, spread
from undiffuse.utils.conditions import Condition, is_told, joined, unconditional

ALWAYS = (0.0, math.inf)
"""The interval of every noise level."""


def guided(
    predict: Predict, scale: float, guide: Predict | None = None, interval: tuple[float, float] = ALWAYS
) -> Predict:
    """x0 = D_guide + scale (D - D_guide): 1 is D itself, more exaggerates how it differs from the guide.

    Without a `guide` this is classifier-free guidance (Ho & Salimans 2022, Eq. 6, on x0), where the guide is the same
    network without the label and all other conditions but the augmentation; with one it is autoguidance (Karras et al.
    2024a, Eq. 3), where it is a weaker model.

    Guidance acts at noise levels in (low, high] only (Kynkaanniemi et al. 2024, Eq. 5), and the guide is not evaluated
    at others. To tell which they are, a GPU is waited for once an evaluation, unless the interval is `ALWAYS`.
    """
    low, high = interval

    def guided_predict(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
        if scale == 1 or (guide is None and not is_told(label)):
            return predict(x, sigma, label)
        if interval == ALWAYS:
            prediction, weaker = _both(predict, guide, x, sigma, label)
            return prediction._replace(x0=torch.lerp(weaker, prediction.x0, scale))
        acts = (low < sigma) & (sigma <= high)
        if not bool(acts.any()):
            return predict(x, sigma, label)
        prediction, weaker = _both(predict, guide, x, sigma, label)
        weight = spread(torch.where(acts, scale, 1.0)).to(weaker.dtype)
        return prediction._replace(x0=torch.lerp(weaker, prediction.x0, weight))

    return guided_predict


def _both(
    predict: Predict, guide: Predict | None, x: Tensor, sigma: Tensor, label: Condition
) -> tuple[Prediction, Tensor]:
    """The prediction, and the guide's x0."""
    if guide is not None:
        return predict(x, sigma, label), guide(x, sigma, label).x0
    # One batch: half as many kernels to start.
    both = predict(torch.cat([x, x]), torch.cat([sigma, sigma]), joined(label, unconditional(label)))
    x0, weaker = both.x0.chunk(2)
    fraction = None if both.variance_fraction is None else both.variance_fraction.chunk(2)[0]
    return Prediction(x0, fraction), weaker
