"""The exponential moving average (EMA) of the weights, which samples are made from.

DDPM's CIFAR-10 FID is 12.1 without it and 3.2 with it.
"""

import copy

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from undiffuse.runs.ema_profile import ema_halflife
from undiffuse.utils.sharding import local


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
    weight = 1 - 0.5 ** (batch / max(ema_halflife(total_images, halflife_images), 1e-9))
    averaged: list[Tensor] = [local(p) for p in ema.parameters()]
    current: list[Tensor] = [local(p) for p in network.parameters()]
    if unless is None:
        torch._foreach_lerp_(averaged, current, weight)
    else:
        amount = torch.where(unless, 0.0, weight)
        torch._foreach_lerp_(averaged, current, [amount.to(each.dtype) for each in averaged])
    for kept, buffer in zip(ema.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
