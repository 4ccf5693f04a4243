"""What is in the data: images by split, class, file format and size, and the files that cannot be decoded."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from undiffuse.data.store import Store
from undiffuse.utils.text import size_text

IN_MEMORY = "in memory"
"""The format of images that were never files."""


@dataclass(frozen=True)
class ClassCount:
    name: str
    images: int
    splits: dict[str, int]
    """Images of the class in each split."""


@dataclass(frozen=True)
class BadFile:
    name: str
    reason: str


@dataclass(frozen=True)
class Range:
    """The smallest, the median and the largest of some values."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Inventory:
    """What the files' headers say. Heights and widths are those of the upright images, in pixels."""

    images: int
    splits: dict[str, int]
    """Empty if the source has no splits."""
    classes: tuple[ClassCount, ...]
    """In the order of their labels; empty if the source has no classes."""
    formats: dict[str, int]
    """JPEG, PNG and so on, the most frequent first."""
    modes: dict[str, int]
    """Pillow's names for the channels in the files, the most frequent first."""
    sizes: dict[str, int]
    """Sizes written as "HxW", the most frequent first."""
    height: Range
    width: Range
    aspect: Range
    """Width divided by height."""
    landscape: int
    portrait: int
    square: int
    bad_files: tuple[BadFile, ...]

    def shapes(self) -> dict[tuple[int, int], int]:
        """Images by (height, width)."""
        sides = {size: size.split("x") for size in self.sizes}
        return {(int(sides[size][0]), int(sides[size][1])): count for size, count in self.sizes.items()}


def take_inventory(store: Store) -> Inventory:
    """Counts what the store knows about its images' files, without reading any pixels."""
    splits, formats, modes, shapes = Counter[str](), Counter[str](), Counter[str](), Counter[tuple[int, int]]()
    by_class = [Counter[str]() for _ in store.class_names]
    for label, original in zip(store.labels.tolist(), store.originals(), strict=True):
        splits[original.split] += 1
        formats[original.format or IN_MEMORY] += 1
        modes[original.mode] += 1
        shapes[original.height, original.width] += 1
        if label >= 0:
            by_class[label][original.split] += 1
    present = [split for split in ("train", "val", "test") if split in splits]
    heights, widths = np.repeat(list(shapes), list(shapes.values()), axis=0).T
    return Inventory(
        images=len(store),
        splits={split: splits[split] for split in present},
        classes=tuple(
            ClassCount(name, counts.total(), {split: counts[split] for split in present})
            for name, counts in zip(store.class_names, by_class, strict=True)
        ),
        formats=dict(formats.most_common()),
        modes=dict(modes.most_common()),
        sizes={size_text(shape): count for shape, count in shapes.most_common()},
        height=_range(heights),
        width=_range(widths),
        aspect=_range(widths / heights),
        landscape=int((widths > heights).sum()),
        portrait=int((widths < heights).sum()),
        square=int((widths == heights).sum()),
        bad_files=tuple(BadFile(name, reason) for name, reason in store.skipped),
    )


@dataclass(frozen=True)
class Balance:
    """How evenly the images are distributed over the classes."""

    largest: ClassCount
    smallest: ClassCount
    imbalance_ratio: float | None
    """Images in the largest class per image in the smallest; None if the smallest is empty."""
    entropy_bits: float
    """Entropy of the class of a random image; log2 of the number of classes if they are even."""
    evenness: float
    """The entropy as a fraction of its maximum."""


def measure_balance(inventory: Inventory) -> Balance | None:
    """None if there are no classes."""
    if not inventory.classes:
        return None
    ordered = sorted(inventory.classes, key=lambda one: one.images)
    counts = np.array([one.images for one in ordered])
    fractions = counts[counts > 0] / counts.sum()
    entropy = float(-(fractions * np.log2(fractions)).sum())
    return Balance(
        largest=ordered[-1],
        smallest=ordered[0],
        imbalance_ratio=float(counts[-1] / counts[0]) if counts[0] else None,
        entropy_bits=entropy,
        evenness=entropy / float(np.log2(len(counts))),
    )


def _range(values: np.ndarray) -> Range:
    return Range(float(values.min()), float(np.median(values)), float(values.max()))
