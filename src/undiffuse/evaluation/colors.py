"""Whether samples have the colors of the data: a tint is a common fault, and seldom seen by eye."""

from dataclasses import dataclass

import numpy as np

from undiffuse.features.image_sets import ImageSet

LOOKED_AT = 10_000
"""Images that are read, evenly spread over the set."""

PORTION = 500

CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class Color:
    """Of each channel, over all pixels, from 0 to 255."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    images: int


def color(images: ImageSet) -> Color:
    taken = min(len(images), LOOKED_AT)
    indices = np.linspace(0, len(images) - 1, taken).round().astype(int)
    pixels, sums, squares = 0, np.zeros(3), np.zeros(3)
    for start in range(0, taken, PORTION):
        values = images.read(indices[start : start + PORTION]).reshape(-1, 3).astype(np.float64)
        pixels += len(values)
        sums += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
    mean = sums / pixels
    sd = np.sqrt(np.maximum(squares / pixels - np.square(mean), 0))
    return Color(tuple(mean.tolist()), tuple(sd.tolist()), taken)
