"""What is kept of each image to find its duplicates: a digest, a difference hash and a standardized thumbnail."""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8, UInt64
from torch import Tensor

from undiffuse.data.pixels import to_nchw

THUMBNAIL_SIDE = 8
"""In pixels."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in Pillow's conversion to gray (ITU-R 601-2), so that gray copies of color images are
found."""


def digest(pixels: UInt8[np.ndarray, "h w c"]) -> int:
    """64 bits that differ if any pixel differs; the chance of a collision among n images is about n^2 / 4e19."""
    return int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "big")


def to_gray(pixels: UInt8[np.ndarray, "b h w c"]) -> Float[Tensor, "b 1 h w"]:
    """The brightness of the pixels, from 0 to 255. Alpha is ignored."""
    if pixels.shape[3] == 1:
        return to_nchw(pixels).float()
    return (torch.from_numpy(pixels[..., :3]).float() @ torch.tensor(LUMA)).unsqueeze(1)


def difference_hashes(images: Float[Tensor, "b 1 h w"]) -> UInt64[np.ndarray, " b"]:
    """64 bits per image: in each of 8 rows of 9 areas, whether an area is brighter than the one to its left."""
    areas = F.adaptive_avg_pool2d(images, (8, 9)).squeeze(1)
    bits = (areas[:, :, 1:] > areas[:, :, :-1]).flatten(1).numpy()
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def standardized_thumbnails(images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 64"]:
    """8x8 areas with mean 0 and length 1, so that the product of two is their correlation. Flat images give zeros."""
    areas = F.adaptive_avg_pool2d(images, (THUMBNAIL_SIDE, THUMBNAIL_SIDE)).flatten(1)
    centered = areas - areas.mean(dim=1, keepdim=True)
    length = centered.norm(dim=1, keepdim=True)
    # With less than half a level of contrast there is only noise to compare.
    return torch.where(length > THUMBNAIL_SIDE / 2, centered / length.clamp(min=1e-9), torch.zeros(()))
