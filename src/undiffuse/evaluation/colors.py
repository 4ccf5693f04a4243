"""Whether samples have the colors of the data. A tint is a common fault, and hard to see."""

from dataclasses import dataclass

import numpy as np

from undiffuse.features.image_sets import ImageSet

MOST_IMAGES = 10_000
"""Images that are read, evenly spread over the set."""

CHUNK = 500


@dataclass(frozen=True)
class Color:
    """Red, green and blue over all pixels, from 0 to 255."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    images: int


def color(images: ImageSet) -> Color:
    """Mean and standard deviation of each channel."""
    count = min(len(images), MOST_IMAGES)
    indices = np.linspace(0, len(images) - 1, count).round().astype(int)
    pixels, sums, squares = 0, np.zeros(3), np.zeros(3)
    for start in range(0, count, CHUNK):
        values = images.read(indices[start : start + CHUNK]).reshape(-1, 3).astype(np.float64)
        pixels += len(values)
        sums += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
    mean = sums / pixels
    sd = np.sqrt(np.maximum(squares / pixels - np.square(mean), 0))
    return Color(tuple(mean.tolist()), tuple(sd.tolist()), count)
