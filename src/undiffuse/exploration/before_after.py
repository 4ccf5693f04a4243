"""A few originals, decoded once more, next to what training reads of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from undiffuse.data.decoding import to_channels
from undiffuse.data.image_files import upright
from undiffuse.data.source import Source
from undiffuse.data.store import Store
from undiffuse.exploration.framing import kept_fraction

EXAMPLES = 6

LONGEST_SIDE = 320
"""Originals are kept no larger than this, in pixels."""


@dataclass(frozen=True)
class BeforeAfter:
    """An original, shrunk for display, and the image that training reads."""

    name: str
    height: int
    """Of the original, in pixels."""
    width: int
    original: UInt8[np.ndarray, "h w c"]
    result: UInt8[np.ndarray, "h2 w2 c"]


def before_and_after(source: Source, store: Store, count: int = EXAMPLES) -> list[BeforeAfter]:
    """Images from the one that a crop cuts most to the one that it cuts least, in even steps."""
    kept = np.array([kept_fraction(original.height, original.width, store.size) for original in store.originals()])
    order = np.argsort(kept, kind="stable")
    steps = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    chosen = order[steps].tolist()
    originals = store.originals_of(chosen)
    by_name = _open(source, [originals[i].name for i in chosen], store.channels)
    return [
        BeforeAfter(one.name, one.height, one.width, by_name[one.name], store.read([i])[0])
        for i, one in ((i, originals[i]) for i in chosen)
        if one.name in by_name
    ]


def _open(source: Source, names: Sequence[str], channels: int) -> dict[str, np.ndarray]:
    """The images with these names that can still be opened, by name."""
    by_name: dict[str, np.ndarray] = {}
    remaining = set(names)
    for image in source.images():
        if image.name in remaining:
            remaining.remove(image.name)
            try:
                with image.open() as opened:
                    by_name[image.name] = _shrunk(opened, channels)
            except Exception:  # It was decoded before, but files may change: then there is one example fewer.
                continue
        if not remaining:
            break
    return by_name


def _shrunk(opened: Image.Image, channels: int) -> np.ndarray:
    shrunk = to_channels(upright(opened), channels)
    shrunk.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(shrunk).reshape(shrunk.height, shrunk.width, channels)
