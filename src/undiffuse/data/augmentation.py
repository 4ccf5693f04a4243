"""Augmentation with torchvision's transforms, each image with its own random numbers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from undiffuse.data.pixels import to_signed_range
from undiffuse.utils.randomness import derived_seed
from undiffuse.utils.validation import STRICT


@dataclass(frozen=True, config=STRICT)
class AugmentationConfig:
    """Random changes to the images that training reads. Off by default: the model learns what it is shown."""

    flip: bool = False
    """Mirror half of the images left to right (RandomHorizontalFlip). Not for digits or letters."""
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1: crop each image to a random fraction of its area, between this and 1 (RandomResizedCrop)."""
    nonleaky: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Above 0: EDM's augmentation for small sets. With this probability each, images are turned, scaled, stretched
    and moved, with half of it put upside down, and half of them mirrored; the network is told how, so that samples show
    none of it. EDM has 0.12 for CIFAR-10."""
    patches: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Above 0: Patch Diffusion (Wang et al. 2023). This fraction of the steps trains on patches with half or a quarter
    of the images' sides; the network is told where they are, and makes whole images. They have 0.5."""
    crop_ratio: Annotated[float, Field(ge=1)] = 4 / 3
    """The aspect ratio of the crop differs from the image's by at most this factor, either way."""


Transform = Callable[[UInt8[Tensor, "b c h w"], int, Sequence[int]], Float[Tensor, "b c h w"]]
"""Takes uint8 images, a seed and the number of each image; gives float32 in [-1, 1]."""


def augmentation(config: AugmentationConfig, size: tuple[int, int]) -> Transform:
    """The transform for a batch. With the same seed, image n always gets the same random numbers."""
    # A partial, not a closure: loader processes that are not forked receive the transform by pickle.
    return partial(_transform, nn.Sequential(*random_transforms(config, size)))


def random_transforms(config: AugmentationConfig, size: tuple[int, int]) -> list[nn.Module]:
    """The torchvision transforms that the config turns on, in order; they print with their parameters."""
    if config.crop_scale == 1 and not config.flip:
        return []
    from torchvision.transforms import v2  # Takes two seconds: too long for those who use none of it.

    random: list[nn.Module] = []
    if config.crop_scale < 1:
        aspect = size[1] / size[0]
        random.append(
            v2.RandomResizedCrop(
                size,
                scale=(config.crop_scale, 1.0),
                ratio=(aspect / config.crop_ratio, aspect * config.crop_ratio),
                interpolation=v2.InterpolationMode.BICUBIC,
                antialias=True,
            )
        )
    if config.flip:
        random.append(v2.RandomHorizontalFlip())
    return random


def _transform(random: nn.Sequential, images: Tensor, seed: int, numbers: Sequence[int]) -> Tensor:
    if len(random):
        # torchvision's transforms use only the global generator; its state is restored.
        with torch.random.fork_rng(devices=[]):
            images = torch.stack([_with_seed(random, image, seed, n) for image, n in zip(images, numbers, strict=True)])
    return to_signed_range(images)


def _with_seed(transform: nn.Module, image: Tensor, seed: int, number: int) -> Tensor:
    torch.default_generator.manual_seed(derived_seed("augmentation", seed, number))
    return transform(image)
