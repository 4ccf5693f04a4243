"""A few originals, undecoded until now, beside what training reads of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from undiffuse.data.decoding import to_channels
from undiffuse.data.source import Source
from undiffuse.data.store import Store
from undiffuse.exploration.framing import kept_share

SHOWN = 6

LONGEST_SIDE = 320
"""Originals are kept no larger than this, in pixels."""


@dataclass(frozen=True)
class Beside:
    """An original, made small, and the image that training reads."""

    name: str
    height: int
    """Of the original, in pixels."""
    width: int
    original: UInt8[np.ndarray, "h w c"]
    result: UInt8[np.ndarray, "h2 w2 c"]


def beside(source: Source, store: Store, count: int = SHOWN) -> list[Beside]:
    """Images from the one that a crop would cut most to the one that it would cut least, in even steps."""
    kept = np.array([kept_share(original.height, original.width, store.size) for original in store.originals()])
    order = np.argsort(kept, kind="stable")
    steps = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    chosen = order[steps].tolist()
    about = store.originals_of(chosen)
    by_name = _open(source, [about[i].name for i in chosen], store.channels)
    return [
        Beside(about[i].name, about[i].height, about[i].width, by_name[about[i].name], store.read([i])[0])
        for i in chosen
        if about[i].name in by_name
    ]


def _open(source: Source, names: Sequence[str], channels: int) -> dict[str, np.ndarray]:
    """The images of these names that still open, by name."""
    by_name: dict[str, np.ndarray] = {}
    wanted = set(names)
    for image in source.images():
        if image.name in wanted:
            wanted.remove(image.name)
            try:
                with image.open() as opened:
                    by_name[image.name] = _small(opened, channels)
            except Exception:  # It was decoded once, but files may change: then there is one fewer to show.
                continue
        if not wanted:
            break
    return by_name


def _small(opened: Image.Image, channels: int) -> np.ndarray:
    upright = to_channels(ImageOps.exif_transpose(opened), channels)
    upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(upright).reshape(upright.height, upright.width, channels)
