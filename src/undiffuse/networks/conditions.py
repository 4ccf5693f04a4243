"""What a U-Net makes of conditions besides the label. What is missing adds nothing, and at first nothing does.

So a network that is told nothing is the network without these parts: to add them, or to take them away from one that
is told nothing, changes no prediction. What it predicts for "nothing told" it learns in its other biases.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from undiffuse.networks.layers import zeroed
from undiffuse.utils.conditions import ConditionSizes


class NumberEmbedding(nn.Module):
    """Features of numbers, NaN where they are missing: an MLP of each one and of whether it is told."""

    def __init__(self, numbers: int, dim: int):
        super().__init__()
        # Without biases, so that all missing, which is all zeros, gives zero.
        self.first = nn.Linear(2 * numbers, dim, bias=False)
        self.last = zeroed(nn.Linear(dim, dim, bias=False))

    def forward(self, numbers: Float[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        told = ~numbers.isnan()
        inputs = torch.cat([torch.where(told, numbers, 0), told], dim=1)
        return self.last(F.silu(self.first(inputs.to(self.first.weight.dtype))))


class CategoryEmbedding(nn.Module):
    """Features of categories, -1 where they are missing: the sum of a row for each column's value."""

    first_row: Tensor
    """Of each column in the table."""

    def __init__(self, categories: tuple[int, ...], dim: int):
        super().__init__()
        self.table = zeroed(nn.Embedding(sum(categories), dim))
        first_row = torch.tensor(list(accumulate(categories[:-1], initial=0)))
        self.register_buffer("first_row", first_row, persistent=False)

    def forward(self, categories: Int[Tensor, "b m"]) -> Float[Tensor, "b d"]:
        told = categories >= 0
        rows = self.table(torch.where(told, categories + self.first_row, 0))
        return (rows * told[..., None]).sum(dim=1)


class ChannelsInput(nn.Module):
    """What more input channels add to the features of a U-Net's first convolution; at first nothing.

    That convolution and this one are one convolution of all their channels together.
    """

    def __init__(self, channels: int, patch: int, features: int):
        super().__init__()
        self.patch = patch
        self.conv = zeroed(nn.Conv2d(channels * patch**2, features, 3, padding=1, bias=False))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.conv(F.pixel_unshuffle(x.to(self.conv.weight.dtype), self.patch))


class ImageInput(ChannelsInput):
    """What another image, NaN where it is missing, adds, with an indicator of where there is one."""

    def __init__(self, channels: int, patch: int, features: int):
        super().__init__(channels + 1, patch, features)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        told = ~x.isnan().any(dim=1, keepdim=True)
        return super().forward(torch.cat([torch.where(told, x, 0), told], dim=1))


@dataclass(frozen=True)
class KeptColumns:
    """Which columns of a table a network knew already, and whether it knew the kind of the other image."""

    numbers: tuple[int, ...] = ()
    """For each number, its place among those before; -1: it is new."""
    categories: tuple[int, ...] = ()
    """For each value of each category in order, its place among those before; -1: it is new."""
    image: bool = True
    """The other image is of the kind that it was; else it is new."""


NONE_KEPT = KeptColumns()

PARTS = ("embed_augmentation.", "embed_numbers.", "embed_categories.", "input_image.", "input_coordinates.")
"""Names of the parameters in a U-Net begin with one of these."""


def adapted_conditions(
    weights: Mapping[str, Tensor], sizes: ConditionSizes, kept: KeptColumns, patch: int
) -> dict[str, Tensor]:
    """A U-Net's weights with parts of these sizes: it predicts what it did of what it knew already.

    What is new has no effect yet, and what goes is as if it were missing. Of the other image, the weights are kept if
    it is of the same kind and has as many channels.

    Raises:
        ValueError: the weights need the coordinates of pixels, which are never missing.
    """
    where = "input_coordinates.conv.weight"
    if where in weights and not sizes.coordinates:
        raise ValueError(
            "The weights were trained on patches and need the coordinates of pixels: leave augmentation.patches above "
            "0."
        )
    stem, dim = weights["input.weight"], len(weights["embed.2.bias"])
    adapted = {name: tensor for name, tensor in weights.items() if not name.startswith(PARTS)}
    zeros = stem.new_zeros
    if sizes.augmentation:
        name = "embed_augmentation.weight"
        adapted[name] = weights[name] if name in weights else zeros(dim, sizes.augmentation)
    if sizes.numbers:
        adapted |= _numbers(weights, sizes.numbers, kept.numbers, dim)
    if sizes.categories:
        name, places = "embed_categories.table.weight", kept.categories or (-1,) * sum(sizes.categories)
        adapted[name] = torch.stack([weights[name][place] if place >= 0 else zeros(dim) for place in places])
    if sizes.image_channels:
        name, shape = "input_image.conv.weight", (len(stem), (sizes.image_channels + 1) * patch**2, 3, 3)
        known = kept.image and name in weights and weights[name].shape == shape
        adapted[name] = weights[name] if known else zeros(*shape)
    if sizes.coordinates:
        adapted[where] = weights[where] if where in weights else zeros(len(stem), 2 * patch**2, 3, 3)
    return adapted


def _numbers(weights: Mapping[str, Tensor], numbers: int, kept: tuple[int, ...], dim: int) -> dict[str, Tensor]:
    first, last = "embed_numbers.first.weight", "embed_numbers.last.weight"
    new = weights["input.weight"].new_zeros
    if not any(place >= 0 for place in kept):
        # As nn.Linear begins: were both zero, neither would ever learn.
        rows = nn.init.kaiming_uniform_(new(dim, 2 * numbers), math.sqrt(5), generator=torch.Generator().manual_seed(0))
        return {first: rows, last: new(dim, dim)}
    before = weights[first].shape[1] // 2
    columns = [*kept, *(place if place < 0 else before + place for place in kept)]
    taken = [weights[first][:, place] if place >= 0 else new(dim) for place in columns]
    return {first: torch.stack(taken, dim=1), last: weights[last]}
