"""What is kept of every image to find others like it: a digest, a difference hash, a standardized thumbnail."""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8, UInt64
from torch import Tensor

SIDE = 8
"""Of the thumbnails, in pixels."""

LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in gray as Pillow makes it (ITU-R 601-2): a gray copy of a color image is found."""


def digest(pixels: UInt8[np.ndarray, "h w c"]) -> int:
    """64 bits that differ where any pixel does, but for a chance of n^2 / 4e19 among n images."""
    return int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "big")


def gray(pixels: UInt8[np.ndarray, "b h w c"]) -> Float[Tensor, "b 1 h w"]:
    """How bright the pixels are, 0 to 255; transparency is passed over."""
    if pixels.shape[3] == 1:
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    return (torch.from_numpy(pixels[..., :3]).float() @ torch.tensor(LUMA)).unsqueeze(1)


def difference_hashes(images: Float[Tensor, "b 1 h w"]) -> UInt64[np.ndarray, " b"]:
    """64 bits an image: of 8 rows of 9 areas, whether each is brighter than the one to its left."""
    areas = F.adaptive_avg_pool2d(images, (8, 9)).squeeze(1)
    bits = (areas[:, :, 1:] > areas[:, :, :-1]).flatten(1).numpy()
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def standardized_thumbnails(images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 64"]:
    """8x8 areas, their mean taken off, scaled to length 1: products of two are their correlation. Flat ones are 0."""
    areas = F.adaptive_avg_pool2d(images, (SIDE, SIDE)).flatten(1)
    centered = areas - areas.mean(dim=1, keepdim=True)
    length = centered.norm(dim=1, keepdim=True)
    # Below half a level of contrast there is nothing to compare but noise.
    return torch.where(length > SIDE / 2, centered / length.clamp(min=1e-9), torch.zeros(()))
