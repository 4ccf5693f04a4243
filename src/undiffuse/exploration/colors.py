"""How bright and how colorful the images are, computed exactly from the histograms of their channels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from undiffuse.exploration.scan import Scan

CHANNEL_NAMES = {1: ("gray",), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}


@dataclass(frozen=True)
class Channel:
    """One channel over all pixels of all images."""

    name: str
    mean: float
    """From 0 to 255."""
    std: float
    unit_mean: float
    """The mean in [-1, 1], the range in which training sees the pixels."""
    unit_std: float
    fraction_at_0: float
    """Fraction of the pixels at level 0."""
    fraction_at_255: float
    """Fraction of the pixels at level 255."""
    histogram: tuple[int, ...]
    """Pixels at each level from 0 to 255."""


@dataclass(frozen=True)
class Colors:
    channels: tuple[Channel, ...]
    unit_std: float
    """Standard deviation over all pixels and channels together, in [-1, 1]: EDM's sigma_data."""


def measure_colors(scanned: Scan) -> Colors:
    """Exact means and standard deviations, from the histograms."""
    names = CHANNEL_NAMES[len(scanned.histograms)]
    channels = tuple(_channel(name, histogram) for name, histogram in zip(names, scanned.histograms, strict=True))
    return Colors(channels, unit_std=_channel("all", scanned.histograms.sum(axis=0)).unit_std)


def _channel(name: str, histogram: Int[np.ndarray, " 256"]) -> Channel:
    levels, pixels = np.arange(256), histogram.sum()
    mean = float((histogram * levels).sum() / pixels)
    std = float(np.sqrt((histogram * (levels - mean) ** 2).sum() / pixels))
    return Channel(
        name=name,
        mean=mean,
        std=std,
        unit_mean=mean / 127.5 - 1,
        unit_std=std / 127.5,
        fraction_at_0=float(histogram[0] / pixels),
        fraction_at_255=float(histogram[255] / pixels),
        histogram=tuple(histogram.tolist()),
    )
