"""What it costs to bring all images to one size and shape: what a crop cuts off, and how much detail remains."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from undiffuse.utils.names import Fit

MULTIPLE = 8
"""Suggested sides are multiples of this, and at least two of them: the presets' networks halve images three times."""

HEAVY_CROP = 0.25
"""Images that lose more than this fraction of their area are counted."""


@dataclass(frozen=True)
class Framing:
    """What a size and a fit keep of the images."""

    size: tuple[int, int]
    """Height and width, in pixels."""
    fit: Fit
    kept_mean: float
    """Fraction of an image's area that stays in the frame, averaged over all images."""
    kept_min: float
    heavily_cropped: int
    """Images that lose more than a quarter of their area."""
    padding_mean: float
    """Fraction of the frame that is padding, averaged over all images."""
    stretch_max: float
    """The largest factor by which an image's proportions change; 1 if none do."""
    pixel_ratio_median: float
    """Pixels in the frame per pixel of the image that is not cut off, the median: below 1 detail is lost."""
    upscaled: int
    """Images that are enlarged along at least one side, and so become blurred."""


def measure_framing(shapes: Mapping[tuple[int, int], int], size: tuple[int, int], fit: Fit) -> Framing:
    """`shapes` counts the images by (height, width), as `Inventory.shapes` does."""
    counts = np.array(list(shapes.values()))
    heights, widths = np.array(list(shapes), dtype=np.float64).T
    overlap = np.array([kept_fraction(height, width, size) for height, width in shapes])
    ones = np.ones_like(overlap)
    kept = overlap if fit == "crop" else ones
    filled = overlap if fit == "pad" else ones
    frame = size[0] * size[1] * filled
    # The scale along the side that is enlarged most.
    vertical, horizontal = size[0] / heights, size[1] / widths
    scale = np.minimum(vertical, horizontal) if fit == "pad" else np.maximum(vertical, horizontal)
    total = counts.sum()
    return Framing(
        size=size,
        fit=fit,
        kept_mean=float((kept * counts).sum() / total),
        kept_min=float(kept.min()),
        heavily_cropped=int(counts[kept < 1 - HEAVY_CROP].sum()),
        padding_mean=float(((1 - filled) * counts).sum() / total),
        stretch_max=float((1 / overlap).max()) if fit == "stretch" else 1.0,
        pixel_ratio_median=float(np.median(np.repeat(frame / (heights * widths * kept), counts))),
        upscaled=int(counts[scale > 1 + 1e-9].sum()),
    )


def kept_fraction(height: int, width: int, size: tuple[int, int]) -> float:
    """Fraction of an image's area that `crop` keeps."""
    ratio = width / height / (size[1] / size[0])
    return min(ratio, 1 / ratio)


def crop_box(height: int, width: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the center that `crop` keeps of an image, in its pixels."""
    aspect = size[1] / size[0]
    kept_width, kept_height = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    return left, top, left + kept_width, top + kept_height


def size_of_median_shape(shapes: Mapping[tuple[int, int], int], side: int) -> tuple[int, int]:
    """The size with the images' median proportions and `side` as its longer side, in sides that networks accept."""
    aspects = np.repeat([width / height for height, width in shapes], list(shapes.values()))
    aspect = float(np.median(aspects))
    shorter = usable_side(side * min(aspect, 1 / aspect))
    return (shorter, side) if aspect >= 1 else (side, shorter)


def usable_side(side: float) -> int:
    """The nearest side that the presets' networks accept."""
    return max(2 * MULTIPLE, MULTIPLE * round(side / MULTIPLE))
