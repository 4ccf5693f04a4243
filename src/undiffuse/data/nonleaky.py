"""Non-leaky augmentation (Karras et al. 2022, appendix F.2): strong geometric changes that the network is told of.

A network that knows how an image was changed learns from all of them, and makes images that are not changed when it is
told zeros: nothing of the augmentation leaks into the samples.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from undiffuse.utils.randomness import generator

NUMBERS = 9
"""Flips in x and y, scale, cosine - 1 and sine of the rotation, two of the anisotropy, two of the translation."""

SCALE = 0.2
"""Standard deviation of the binary logarithm of the scale, and of the anisotropy."""
TRANSLATION = 0.125
"""Standard deviation of the translation, as a fraction of the side."""
SUPERSAMPLING = 2
"""Images are transformed at this multiple of their size, so that no detail aliases."""


def nonleaky(
    x0: Float[Tensor, "b c h w"], probability: float, seed: int, numbers: Sequence[int]
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 9"]]:
    """Changed images in [-1, 1], and what the network is told of the change; zeros for an image left as it is.

    Each image is mirrored in x half of the time, and each other kind of change is made with that `probability`. With
    the same seed, image n always gets the same change.
    """
    told = torch.stack([_drawn(probability, seed, number) for number in numbers])
    flipped = torch.where(told[:, :1, None, None] > 0, x0.flip(-1), x0)
    changed = (told[:, 1:] != 0).any(dim=1)
    if changed.any():
        flipped[changed] = _transformed(flipped[changed], _matrices(told[changed]))
    return flipped, told


def _drawn(probability: float, seed: int, number: int) -> Float[Tensor, " 9"]:
    random = generator("nonleaky", seed, number)
    uniform, normal = torch.rand(9, generator=random), torch.randn(4, generator=random)
    happens = torch.cat([torch.ones(1), (uniform[:5] < probability).float()])  # x-flips always may.
    flips = (uniform[5:7] < 0.5).float() * happens[:2]
    angle, direction = ((2 * each - 1) * math.pi for each in uniform[7:])
    rotation = torch.stack([angle.cos() - 1, angle.sin()]) * happens[3]
    anisotropy = normal[1] * torch.stack([direction.cos(), direction.sin()]) * happens[4]
    return torch.cat([flips, normal[:1] * happens[2], rotation, anisotropy, normal[2:] * happens[5]])


def _matrices(told: Float[Tensor, "b 9"]) -> Float[Tensor, "b 2 3"]:
    """From a pixel of the result to where it comes from, in coordinates from -1 to 1; the x-flip is made already."""
    _, y_flip, scale, cosine, sine, along, across, right, down = told.unbind(dim=1)
    cosine, one, zero = cosine + 1, torch.ones_like(scale), torch.zeros_like(scale)

    def matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return torch.stack([torch.stack([a, b], dim=1), torch.stack([c, d], dim=1)], dim=1)

    strength, direction = torch.hypot(along, across), torch.atan2(across, along)
    turn = matrix(direction.cos(), -direction.sin(), direction.sin(), direction.cos())
    stretch = matrix(2 ** (strength * SCALE), zero, zero, 2 ** (-strength * SCALE))
    forward = matrix(one, zero, zero, 1 - 2 * y_flip)
    forward = matrix(2 ** (scale * SCALE), zero, zero, 2 ** (scale * SCALE)) @ forward
    forward = matrix(cosine, -sine, sine, cosine) @ forward
    forward = turn @ stretch @ turn.mT @ forward
    backward = torch.linalg.inv(forward)
    # A translation by a fraction of the side is twice as far from -1 to 1.
    shift = 2 * TRANSLATION * torch.stack([right, down], dim=1)
    return torch.cat([backward, -backward @ shift[:, :, None]], dim=2)


def _transformed(x0: Float[Tensor, "b c h w"], matrices: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b c h w"]:
    """Bicubic, on a finer grid; what lies outside is the image mirrored at its edges."""
    height, width = x0.shape[2:]
    sides = torch.tensor([width, height])
    # Rotations are of pixels: coordinates from -1 to 1 are another length across than along, unless it is square.
    aspect = sides[None, :] / sides[:, None]
    matrices = torch.cat([matrices[:, :, :2] * aspect, matrices[:, :, 2:]], dim=2)
    finer = [SUPERSAMPLING * height, SUPERSAMPLING * width]
    large = F.interpolate(x0, size=finer, mode="bicubic", align_corners=False)
    grid = F.affine_grid(matrices, [len(x0), x0.shape[1], *finer], align_corners=False)
    moved = F.grid_sample(large, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return F.interpolate(moved, size=[height, width], mode="area").clamp(-1, 1)
