"""The only place where uint8 pixels become floats in [-1, 1], and floats become uint8 pixels."""

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor


def to_signed_range(pixels: UInt8[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """x / 127.5 - 1 in float32, rounded as by torchvision's ToDtype and Normalize; on the same device."""
    return pixels.to(torch.float32).mul_(1 / 255).sub_(0.5).div_(0.5)


def to_pixels(x: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """Rounded to the nearest of 256 levels, with values outside [-1, 1] clipped; on the CPU."""
    return x.detach().add(1).mul(127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def to_nchw(pixels: Shaped[np.ndarray, "b h w c"]) -> Shaped[Tensor, "b c h w"]:
    """From the layout of files and arrays to the one that networks take; shares the memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def to_nhwc(pixels: Shaped[Tensor, "b c h w"]) -> Shaped[np.ndarray, "b h w c"]:
    """From the layout of networks to that of files and arrays; shares the memory of a tensor on the CPU."""
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
