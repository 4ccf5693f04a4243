"""One random generator per image, on the CPU, so that a seed means the same noise everywhere.

Everything random about an image (its augmentation, its noise level, its noise) depends only on a seed, the image's
index, and what the numbers are for. Batch size, number of processes, device and restarts cannot change it.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def derived_seed(*identity: int | str) -> int:
    """A 63-bit seed that depends on every part of `identity` and on their order."""
    # A hash, not seed + index: seed 0, image 5 and seed 1, image 4 must not have the same noise.
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*identity: int | str) -> torch.Generator:
    """A CPU generator for this `identity` only, for example `generator("noise", seed, index)`."""
    return torch.Generator().manual_seed(derived_seed(*identity))


class ImageRandomness:
    """Random numbers for a batch of images, each from its own generator.

    Two objects for the same images give the same numbers if they are asked in the same order.
    """

    def __init__(self, purpose: str, seed: int, indices: Sequence[int]):
        self.generators = [generator(purpose, seed, index) for index in indices]

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Standard normal noise, float32, `(images, *shape)`."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])

    def uniform(self) -> Float[Tensor, " b"]:
        """One uniform number in [0, 1) per image, float64."""
        return torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in self.generators])
