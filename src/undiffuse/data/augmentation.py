"""Augmentation with torchvision's transforms, each image with random numbers of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from undiffuse.data.pixels import to_unit_range
from undiffuse.utils.randomness import derived_seed


@dataclass(frozen=True)
class AugmentationConfig:
    """What may be done to an image on its way into training. Off by default: the model learns what it is shown."""

    flip: bool = False
    """Mirror every second image left to right (RandomHorizontalFlip). Not for digits or letters."""
    crop_scale: float = 1.0
    """Below 1: cut out a part of between this share of the image's area and all of it (RandomResizedCrop)."""
    crop_ratio: float = 4 / 3
    """How much the part's proportions may differ from the image's, either way."""

    def __post_init__(self):
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale {self.crop_scale} is no share of an image: choose more than 0 and up to 1.")
        if self.crop_ratio < 1:
            raise ValueError(f"crop_ratio {self.crop_ratio} must be at least 1.")


Transform = Callable[[UInt8[Tensor, "b c h w"], int, Sequence[int]], Float[Tensor, "b c h w"]]
"""From uint8 images, a seed and the images' numbers to float32 in [-1, 1]."""


def augmentation(config: AugmentationConfig, size: tuple[int, int]) -> Transform:
    """The transform of a batch. The n-th image of a seed is always transformed with the same random numbers."""
    # No function inside this one: loader processes that are not forked get the transform by pickle.
    return partial(_transform, nn.Sequential(*random_transforms(config, size)), nn.Sequential(*to_unit_range()))


def random_transforms(config: AugmentationConfig, size: tuple[int, int]) -> list[nn.Module]:
    """torchvision's transforms that the config asks for, in order; they print with their parameters."""
    from torchvision.transforms import v2  # Imported when needed: it takes as long as torch itself.

    random: list[nn.Module] = []
    if config.crop_scale < 1:
        proportion = size[1] / size[0]
        random.append(
            v2.RandomResizedCrop(
                size,
                scale=(config.crop_scale, 1.0),
                ratio=(proportion / config.crop_ratio, proportion * config.crop_ratio),
                interpolation=v2.InterpolationMode.BICUBIC,
                antialias=True,
            )
        )
    if config.flip:
        random.append(v2.RandomHorizontalFlip())
    return random


def _transform(
    for_one: nn.Sequential, for_all: nn.Sequential, images: Tensor, seed: int, numbers: Sequence[int]
) -> Tensor:
    if len(for_one):
        # torchvision's transforms know only the global generator: it is left as it was.
        with torch.random.fork_rng(devices=[]):
            images = torch.stack(
                [_with_seed(for_one, image, seed, n) for image, n in zip(images, numbers, strict=True)]
            )
    return for_all(images)


def _with_seed(transform: nn.Module, image: Tensor, seed: int, number: int) -> Tensor:
    torch.default_generator.manual_seed(derived_seed("augmentation", seed, number))
    return transform(image)
