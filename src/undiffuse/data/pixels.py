"""The only place where uint8 pixels become floats in [-1, 1], and floats become uint8 pixels."""

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn


def to_unit_range() -> list[nn.Module]:
    """torchvision's transforms from uint8 pixels to float32 in [-1, 1], x / 127.5 - 1, for any number of channels."""
    from torchvision.transforms import v2  # Imported when needed: it takes as long as torch itself.

    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=[0.5], std=[0.5])]


def to_pixels(x: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """Rounded to the nearest of the 256 levels, what lies outside [-1, 1] clipped, on the CPU."""
    return x.detach().add(1).mul(127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def to_nchw(pixels: Shaped[np.ndarray, "b h w c"]) -> Shaped[Tensor, "b c h w"]:
    """Images as files and arrays hold them, the way that networks take them; shares their memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def to_nhwc(pixels: Shaped[Tensor, "b c h w"]) -> Shaped[np.ndarray, "b h w c"]:
    """The way back; shares the tensor's memory where it is on the CPU."""
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
