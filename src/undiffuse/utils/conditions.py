"""What a network is told about an image besides its noise level: its label, how it was augmented, and where."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

NO_LABEL = -1
"""Stands for "no label", the unconditional prediction of classifier-free guidance (Ho & Salimans 2022)."""


class Conditions(NamedTuple):
    """Takes the place of the label where a network is told more than that; None for what it is not told."""

    label: Int[Tensor, " b"] | None = None
    """Class index, or `NO_LABEL`."""
    augmentation: Float[Tensor, "b a"] | None = None
    """How the image was changed (`data.nonleaky`); None and zeros: not at all."""
    coordinates: Float[Tensor, "b 2 h w"] | None = None
    """Where each pixel is in the whole image, from -1 to 1 across and down (`data.patches`); None: this is the whole."""

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


class ConditionSizes(NamedTuple):
    """Of the conditions, besides the label, that a network is built for."""

    augmentation: int = 0
    """Numbers that say how an image was augmented."""
    coordinates: bool = False
    """Whether the network is told where each pixel is."""


NO_MORE = ConditionSizes()
"""Of a network that is told nothing but the label."""


def coordinates(height: int, width: int, device: torch.device | None = None) -> Float[Tensor, "2 h w"]:
    """Where each pixel of a whole image is: across and down, from -1 at the first to 1 at the last."""
    across, down = (torch.linspace(-1, 1, pixels, device=device) for pixels in (width, height))
    return torch.stack([across.expand(height, width), down[:, None].expand(height, width)])


def as_conditions(condition: Condition) -> Conditions:
    """The same, with a label alone as `Conditions` too."""
    return condition if isinstance(condition, Conditions) else Conditions(condition)


def has_label(condition: Condition) -> bool:
    """Whether there is anything that guidance could leave out."""
    return as_conditions(condition).label is not None


def without_label(condition: Condition) -> Condition:
    """The same condition with `NO_LABEL`."""
    told = as_conditions(condition)
    label = None if told.label is None else torch.full_like(told.label, NO_LABEL)
    return told._replace(label=label) if isinstance(condition, Conditions) else label


def joined(one: Condition, other: Condition) -> Tensor | Conditions | None:
    """The conditions of two batches of the same kind, one after the other."""
    pairs = zip(as_conditions(one), as_conditions(other), strict=True)
    both = Conditions(*(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs))
    return both if isinstance(one, Conditions) else both.label
