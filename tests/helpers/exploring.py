"""Makes folders that are worth exploring, for the tests of `undiffuse.exploration` and its page."""

from pathlib import Path

import numpy as np
from helpers.making import noise, opened, save
from PIL import Image

from undiffuse.data.source import open_source
from undiffuse.exploration.duplicates import Duplicates, find_duplicates
from undiffuse.exploration.findings import Exhibits, Findings, explore
from undiffuse.exploration.scan import scan

HOSTILE = ("<script>alert(1)", "$\\frac{1$ & 50%_{", "猫と犬", "long" * 50)
"""Names of classes. The second is no formula, though matplotlib would try to set it as one."""


def smooth(seed: int, height: int = 64, width: int = 64) -> Image.Image:
    """An image as photos are, with large areas, that no other seed resembles."""
    return noise(seed, 6, 6).resize((width, height), Image.Resampling.BICUBIC)


def messy(folder: Path) -> Path:
    """Hostile class names, several modes, formats and sizes, and three files that are no images."""
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
    """What is there twice, and the images' names."""
    store = opened(folder, **options)
    return find_duplicates(scan(store)), store.names


def found_in(folder: Path, split="all", **options) -> tuple[Findings, Exhibits]:
    store = opened(folder, split=split, **options)
    return explore(open_source(str(folder), split=split), store, options.get("fit", "crop"))


def names_of(pairs, names: list[str]) -> set[frozenset[str]]:
    return {frozenset((names[pair.first], names[pair.second])) for pair in pairs}


def gray_ramp(levels: int, height: int = 8) -> Image.Image:
    """Brighter from left to right, a level a column."""
    return Image.fromarray(np.tile(np.arange(levels, dtype=np.uint8), (height, 1)))
