"""Patch Diffusion (Wang et al. 2023): some steps train on patches, and the network is told where each pixel is.

Patches are many more examples than images, and cost less. Every other step or so shows whole images, which the network
makes when it gets the coordinates of a whole one.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.utils.randomness import ImageRandomness, generator

DIVISORS = (2, 4)
"""Patches have half or a quarter of the image's sides."""
HALVES = 0.6
"""Of the steps with patches, this fraction has halves (Wang et al. 2023: 0.3 halves and 0.2 quarters of all)."""

Size = tuple[int, int]
"""Height and width, in pixels."""


def patch_sizes(size: Size) -> list[Size]:
    """The sizes that patches of images have, the largest first."""
    return [(size[0] // divisor, size[1] // divisor) for divisor in DIVISORS]


def mean_pixels(fraction: float) -> float:
    """How many pixels training sees, of those of whole images, if this fraction of the steps has patches."""
    half, quarter = (1 / divisor**2 for divisor in DIVISORS)
    return 1 - fraction + fraction * (HALVES * half + (1 - HALVES) * quarter)


def patch_size(size: Size, fraction: float, seed: int, step: int) -> Size:
    """The size of all patches of a step: the whole image's, but for a `fraction` of the steps."""
    patched, smaller = torch.rand(2, generator=generator("patch size", seed, step), dtype=torch.float64).tolist()
    if patched >= fraction:
        return size
    half, quarter = patch_sizes(size)
    return half if smaller < HALVES else quarter


def patches(tensors: Sequence[Tensor], size: Size, seed: int, numbers: Sequence[int]) -> list[Tensor]:
    """Of each image a patch anywhere, cut from all tensors `(b, channels, h, w)`, which may have other channels.

    With the same seed and size, image n always gets the same one.
    """
    randomness = ImageRandomness("patch", seed, numbers)
    tops, lefts = (
        (randomness.uniform() * (whole - part + 1)).long().tolist()
        for whole, part in zip(tensors[0].shape[2:], size, strict=True)
    )

    def cut(tensor: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        places = zip(tensor, tops, lefts, strict=True)
        return torch.stack([each[:, top : top + size[0], left : left + size[1]] for each, top, left in places])

    return [cut(tensor) for tensor in tensors]
