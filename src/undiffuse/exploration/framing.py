"""What bringing images to one size and shape costs: what a crop cuts off, and how much detail is left."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from undiffuse.utils.names import Fit

MULTIPLE = 8
"""Suggested sizes are multiples of this, and at least two of them: the presets' networks halve sizes three times."""

LOSES_MUCH = 0.25
"""Images that lose more than this share of their area are counted."""


@dataclass(frozen=True)
class Framing:
    """What a size and a fit keep of the images."""

    size: tuple[int, int]
    """Height and width, in pixels."""
    fit: Fit
    kept_mean: float
    """Share of an image's area that is still in the frame, the mean over all images."""
    kept_least: float
    losing_much: int
    """Images of which more than a quarter of the area is cut off."""
    padding_mean: float
    """Share of the frame that is not image, the mean over all images."""
    stretched_most: float
    """The factor by which proportions change, of the image where it is largest; 1 for none."""
    pixels_median: float
    """Pixels of the frame for each pixel of the image that is in it, the median: below 1 detail is lost."""
    enlarged: int
    """Images with fewer pixels along a side than the frame shows of it: they become blurred."""


def framing(shapes: Mapping[tuple[int, int], int], size: tuple[int, int], fit: Fit) -> Framing:
    """`shapes` counts the images by (height, width), as `Inventory.shapes` does."""
    counts = np.array(list(shapes.values()))
    heights, widths = np.array(list(shapes), dtype=np.float64).T
    shared = np.array([kept_share(height, width, size) for height, width in shapes])
    ones = np.ones_like(shared)
    kept = shared if fit == "crop" else ones
    filled = shared if fit == "pad" else ones
    frame = size[0] * size[1] * filled
    # The scale along the side that is enlarged most.
    vertical, horizontal = size[0] / heights, size[1] / widths
    scale = np.minimum(vertical, horizontal) if fit == "pad" else np.maximum(vertical, horizontal)
    total = counts.sum()
    return Framing(
        size=size,
        fit=fit,
        kept_mean=float((kept * counts).sum() / total),
        kept_least=float(kept.min()),
        losing_much=int(counts[kept < 1 - LOSES_MUCH].sum()),
        padding_mean=float(((1 - filled) * counts).sum() / total),
        stretched_most=float((1 / shared).max()) if fit == "stretch" else 1.0,
        pixels_median=float(np.median(np.repeat(frame / (heights * widths * kept), counts))),
        enlarged=int(counts[scale > 1 + 1e-9].sum()),
    )


def kept_share(height: int, width: int, size: tuple[int, int]) -> float:
    """Share of an image's area that `crop` keeps."""
    ratio = width / height / (size[1] / size[0])
    return min(ratio, 1 / ratio)


def crop_box(height: int, width: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what `crop` keeps of an image, in its pixels: the middle of it."""
    wanted = size[1] / size[0]
    kept_width, kept_height = min(width, height * wanted), min(height, width / wanted)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    return left, top, left + kept_width, top + kept_height


def better_size(shapes: Mapping[tuple[int, int], int], side: int) -> tuple[int, int]:
    """The size with the images' median proportions, its longer side `side`, that networks can halve."""
    aspects = np.repeat([width / height for height, width in shapes], list(shapes.values()))
    aspect = float(np.median(aspects))
    shorter = halvable(side * min(aspect, 1 / aspect))
    return (shorter, side) if aspect >= 1 else (side, shorter)


def halvable(side: float) -> int:
    """The side nearest to this one that the presets' networks can take."""
    return max(2 * MULTIPLE, MULTIPLE * round(side / MULTIPLE))
