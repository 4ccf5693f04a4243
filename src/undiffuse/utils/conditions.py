"""What a network is told about an image besides its noise level: its label, numbers, categories, another image."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NO_LABEL = -1
"""Stands for "no label", the unconditional prediction of classifier-free guidance (Ho & Salimans 2022)."""


class Conditions(NamedTuple):
    """Takes the place of the label where a network is told more than that; None for what it is not told."""

    label: Int[Tensor, " b"] | None = None
    """Class index, or `NO_LABEL`."""
    augmentation: Float[Tensor, "b a"] | None = None
    """How the image was changed (`data.nonleaky`); None and zeros: not at all."""
    numbers: Float[Tensor, "b k"] | None = None
    """Standardized; NaN for what is missing."""
    categories: Int[Tensor, "b m"] | None = None
    """The index of each column's value; -1 for what is missing."""
    image: Float[Tensor, "b i h w"] | None = None
    """Another image, of any channels, in [-1, 1]; NaN where it is missing."""
    coordinates: Float[Tensor, "b 2 h w"] | None = None
    """Where each pixel is, from -1 to 1 across and down the whole image (`data.patches`); None: this is the whole."""

    def map(self, function: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same with the function of each tensor."""
        return Conditions(*(None if each is None else function(each) for each in self))

    def split(self, size: int) -> list["Conditions"]:
        """At most `size` images in each."""
        parts = [None if each is None else each.split(size) for each in self]
        count = max(len(each) for each in parts if each is not None)
        return [Conditions(*(None if each is None else each[i] for each in parts)) for i in range(count)]


Condition = Int[Tensor, " b"] | Conditions | None
"""A label for each image, or more than that, or nothing."""

MISSING = {"label": NO_LABEL, "numbers": math.nan, "categories": -1, "image": math.nan}
"""What stands for "not told". How an image was augmented, and where its pixels are, is always told: guidance
must not strengthen it."""


class ConditionSizes(NamedTuple):
    """Of the conditions, besides the label, that a network is built for."""

    augmentation: int = 0
    """Numbers that say how an image was augmented."""
    numbers: int = 0
    categories: tuple[int, ...] = ()
    """How many values each column has."""
    image_channels: int = 0
    """Of the other image."""
    coordinates: bool = False
    """Whether the network is told where each pixel is."""


NO_MORE = ConditionSizes()
"""Of a network that is told nothing but the label."""


def coordinates(height: int, width: int, device: torch.device | None = None) -> Float[Tensor, "2 h w"]:
    """Where each pixel of a whole image is: across and down, from -1 at the first to 1 at the last."""
    across, down = (torch.linspace(-1, 1, pixels, device=device) for pixels in (width, height))
    return torch.stack([across.expand(height, width), down[:, None].expand(height, width)])


def as_conditions(condition: Condition | Sequence[int]) -> Conditions:
    """The same, with a label alone as `Conditions` too, and labels in a list as a tensor."""
    if isinstance(condition, Conditions):
        return condition
    return Conditions(condition if condition is None or isinstance(condition, Tensor) else torch.tensor(condition))


def simplest(conditions: Conditions) -> Condition:
    """A label alone, or None, where that says it all: what a network that knows no more can take."""
    more = any(each is not None for each in conditions[1:])
    return conditions if more else conditions.label


def is_told(condition: Condition) -> bool:
    """Whether there is anything that guidance could leave out."""
    told = as_conditions(condition)
    return any(getattr(told, name) is not None for name in MISSING)


def says_something(condition: Condition) -> bool:
    """Whether anything that guidance could leave out is not missing already, in any of the images."""
    told = {name: getattr(as_conditions(condition), name) for name in MISSING}
    return any(bool((~_missing(each)).any()) for each in told.values() if each is not None)


def unconditional(condition: Condition) -> Condition:
    """The same with everything missing that guidance strengthens: the label and all else but the augmentation."""
    told = as_conditions(condition)
    found = {name: getattr(told, name) for name in MISSING}
    missing = {name: torch.full_like(each, MISSING[name]) for name, each in found.items() if each is not None}
    return _like(told._replace(**missing), condition)


def dropped(condition: Condition, images: Bool[Tensor, " b"]) -> Condition:
    """The same, `unconditional` for these images."""
    pairs = zip(as_conditions(condition), as_conditions(unconditional(condition)), strict=True)

    def mixed(told: Tensor, missing: Tensor) -> Tensor:
        return torch.where(images.view(-1, *[1] * (told.ndim - 1)), missing, told)

    both = Conditions(*(None if a is None or b is None else mixed(a, b) for a, b in pairs))
    return _like(both, condition)


def joined(one: Condition, other: Condition) -> Tensor | Conditions | None:
    """The conditions of two batches of the same kind, one after the other."""
    pairs = zip(as_conditions(one), as_conditions(other), strict=True)
    both = Conditions(*(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs))
    return _like(both, one)


def _like(conditions: Conditions, condition: Tensor | Conditions | None) -> Tensor | Conditions | None:
    return conditions if isinstance(condition, Conditions) else conditions.label


def _missing(tensor: Tensor) -> Tensor:
    return tensor.isnan() if tensor.is_floating_point() else tensor < 0
