"""What was found: images by split, class, kind of file and size, and the files that could not be decoded."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from undiffuse.data.store import Store

IN_MEMORY = "no file"
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
class Spread:
    """The least of something, the most, and the median."""

    least: float
    median: float
    most: float


@dataclass(frozen=True)
class Inventory:
    """What the files' headers say. Heights and widths are those of the upright images, in pixels."""

    images: int
    splits: dict[str, int]
    """Empty where the source has none."""
    classes: tuple[ClassCount, ...]
    """In the order of their labels; empty where the source has none."""
    formats: dict[str, int]
    """JPEG, PNG and so on, the most frequent first."""
    modes: dict[str, int]
    """By Pillow's word for the channels in the file, the most frequent first."""
    sizes: dict[str, int]
    """By size as "HxW", the most frequent first."""
    height: Spread
    width: Spread
    aspect: Spread
    """Width divided by height."""
    landscape: int
    portrait: int
    square: int
    bad_files: tuple[BadFile, ...]

    def shapes(self) -> dict[tuple[int, int], int]:
        """Images by (height, width)."""
        sides = {size: size.split("x") for size in self.sizes}
        return {(int(sides[size][0]), int(sides[size][1])): count for size, count in self.sizes.items()}


def inventory(store: Store) -> Inventory:
    """Counts what the store keeps of its images' files; reads no pixels."""
    splits, formats, modes, shapes = Counter[str](), Counter[str](), Counter[str](), Counter[tuple[int, int]]()
    of_class = [Counter[str]() for _ in store.class_names]
    for label, original in zip(store.labels.tolist(), store.originals(), strict=True):
        splits[original.split] += 1
        formats[original.format or IN_MEMORY] += 1
        modes[original.mode] += 1
        shapes[original.height, original.width] += 1
        if label >= 0:
            of_class[label][original.split] += 1
    present = [split for split in ("train", "val", "test") if split in splits]
    heights, widths = np.repeat(list(shapes), list(shapes.values()), axis=0).T
    return Inventory(
        images=len(store),
        splits={split: splits[split] for split in present},
        classes=tuple(
            ClassCount(name, counts.total(), {split: counts[split] for split in present})
            for name, counts in zip(store.class_names, of_class, strict=True)
        ),
        formats=dict(formats.most_common()),
        modes=dict(modes.most_common()),
        sizes={f"{height}x{width}": count for (height, width), count in shapes.most_common()},
        height=_spread(heights),
        width=_spread(widths),
        aspect=_spread(widths / heights),
        landscape=int((widths > heights).sum()),
        portrait=int((widths < heights).sum()),
        square=int((widths == heights).sum()),
        bad_files=tuple(BadFile(name, reason) for name, reason in store.skipped),
    )


@dataclass(frozen=True)
class Balance:
    """How evenly the images are spread over the classes."""

    largest: ClassCount
    smallest: ClassCount
    imbalance_ratio: float | None
    """Images of the largest class for each of the smallest; None where that has none."""
    entropy_bits: float
    """Of the class of an image drawn at random; log2 of the number of classes where they are even."""
    evenness: float
    """The entropy as a share of the most it could be."""


def balance(found: Inventory) -> Balance | None:
    """None where there are no classes."""
    if not found.classes:
        return None
    ordered = sorted(found.classes, key=lambda of_class: of_class.images)
    counts = np.array([of_class.images for of_class in ordered])
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * np.log2(share)).sum())
    return Balance(
        largest=ordered[-1],
        smallest=ordered[0],
        imbalance_ratio=float(counts[-1] / counts[0]) if counts[0] else None,
        entropy_bits=entropy,
        evenness=entropy / float(np.log2(len(counts))),
    )


def _spread(values: np.ndarray) -> Spread:
    return Spread(float(values.min()), float(np.median(values)), float(values.max()))
