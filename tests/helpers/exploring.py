"""Makes folders worth exploring, for the tests of `undiffuse.exploration` and its page."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.making import noise, opened, save
from undiffuse.data.open import open_source
from undiffuse.exploration.duplicates import Duplicates, find_duplicates
from undiffuse.exploration.explore import Exploration, explore_store
from undiffuse.exploration.inventory import Inventory, Range
from undiffuse.exploration.scan import scan

HOSTILE = ("<script>alert(1)", "$\\frac{1$ & 50%_{", "猫と犬", "long" * 50)
"""Class names. The second is not a formula, though matplotlib would try to typeset it as one."""


def smooth(seed: int, height: int = 64, width: int = 64) -> Image.Image:
    """A photo-like image with large smooth areas, unlike that of any other seed."""
    return noise(seed, 6, 6).resize((width, height), Image.Resampling.BICUBIC)


def messy(folder: Path) -> Path:
    """Hostile class names, several modes, formats and sizes, and three files that are not images."""
    for i, name in enumerate(HOSTILE):
        for j in range(2 + i):
            image = smooth(10 * i + j, 30 + 7 * j, 40 - 5 * i)
            mode = ("RGB", "L", "RGBA", "P", "CMYK")[j]
            save(folder / name / f"{j}.{'jpg' if mode == 'CMYK' else 'png'}", image.convert(mode))
    (folder / HOSTILE[0] / "<b>empty<_b>.png").touch()
    (folder / HOSTILE[2] / "空.jpg").write_text("words")
    whole = (folder / HOSTILE[1] / "0.png").read_bytes()
    (folder / HOSTILE[1] / "half.png").write_bytes(whole[: len(whole) // 2])
    return folder


def found_duplicates(folder: Path, **options) -> tuple[Duplicates, list[str]]:
    """The duplicates in a folder, and the images' names."""
    store = opened(folder, **options)
    return find_duplicates(scan(store)), store.names


def explored(folder: Path, split="all", **options) -> Exploration:
    """The exploration of a folder, without a suggestion."""
    store = opened(folder, split=split, **options)
    return explore_store(lambda: open_source(str(folder), split=split), store, options.get("fit", "crop"))


def inventory(shapes: Mapping[tuple[int, int], int]) -> Inventory:
    """What the headers would say of so many images of each height and width."""
    heights = sorted(height for (height, _), count in shapes.items() for _ in range(count))
    widths = sorted(width for (_, width), count in shapes.items() for _ in range(count))
    middle = len(heights) // 2
    return Inventory(
        images=len(heights),
        splits={},
        classes=(),
        formats={},
        modes={},
        sizes={f"{height}x{width}": count for (height, width), count in shapes.items()},
        height=Range(heights[0], heights[middle], heights[-1]),
        width=Range(widths[0], widths[middle], widths[-1]),
        aspect=Range(1, 1, 1),
        landscape=0,
        portrait=0,
        square=0,
        bad_files=(),
    )


def names_of(pairs, names: list[str]) -> set[frozenset[str]]:
    return {frozenset((names[pair.first], names[pair.second])) for pair in pairs}


def gray_ramp(levels: int, height: int = 8) -> Image.Image:
    """Brighter from left to right, one level per column."""
    return Image.fromarray(np.tile(np.arange(levels, dtype=np.uint8), (height, 1)))
