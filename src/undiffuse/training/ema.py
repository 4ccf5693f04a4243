"""The exponential moving average (EMA) of the weights, which samples are made from.

DDPM's CIFAR-10 FID is 12.1 without it and 3.2 with it.
"""

import copy

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from undiffuse.utils.sharding import local

EMA_RAMPUP_RATIO = 0.05
"""The half-life never exceeds this fraction of the images seen, so that a young EMA is not the initial weights
(Karras et al. 2022, released code: `ema_rampup_ratio`)."""


def ema_copy(network: nn.Module) -> nn.Module:
    """A copy of `network` to hold the EMA of its weights: no gradients, no dropout."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_ema(
    ema: nn.Module,
    network: nn.Module,
    batch: int,
    total_images: int,
    halflife_images: float,
    unless: Bool[Tensor, ""] | None = None,
) -> None:
    """Moves the EMA toward the weights after a step on `batch` images, with `total_images` seen by then.

    Counting in images makes the half-life the same for every batch size. Buffers are copied. Nothing moves where
    `unless` is true, a flag on the device.
    """
    halflife = min(halflife_images, total_images * EMA_RAMPUP_RATIO)
    weight = 1 - 0.5 ** (batch / max(halflife, 1e-9))
    averaged: list[Tensor] = [local(p) for p in ema.parameters()]
    current: list[Tensor] = [local(p) for p in network.parameters()]
    if unless is None:
        torch._foreach_lerp_(averaged, current, weight)
    else:
        amount = torch.where(unless, 0.0, weight)
        torch._foreach_lerp_(averaged, current, [amount.to(each.dtype) for each in averaged])
    for kept, buffer in zip(ema.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
