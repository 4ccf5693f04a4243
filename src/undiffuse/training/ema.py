"""The moving average of the weights, which is what one samples from: DDPM's CIFAR-10 FID is 12.1 without, 3.2 with."""

import copy

import torch
from torch import nn

EMA_RAMPUP_RATIO = 0.05
"""The half-life never exceeds this share of the images seen, so that a young average is not the initial weights
(Karras et al. 2022, released code: `ema_rampup_ratio`)."""


def ema_copy(network: nn.Module) -> nn.Module:
    """A copy of `network` to hold the average: no gradients, no dropout."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, batch: int, total_images: int, halflife_images: float) -> None:
    """Moves the average towards the weights after a step on `batch` images, `total_images` having been seen by then.

    Counting in images makes the half-life the same whatever the batch size.
    """
    halflife = min(halflife_images, total_images * EMA_RAMPUP_RATIO)
    weight = 1 - 0.5 ** (batch / max(halflife, 1e-9))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)
