"""Images that a user gives a model to start from, as training would have shown them to it."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import UInt8
from torch import Tensor

from undiffuse.data.image_files import in_words, upright
from undiffuse.data.low_resolution import reduced, small_size
from undiffuse.data.one_image import ImageLike, Size, open_image, prepared, unscaled_size
from undiffuse.data.open import open_source
from undiffuse.data.paths import SUFFIXES, printable
from undiffuse.data.pixels import to_signed_range
from undiffuse.data.source import Image
from undiffuse.utils.names import Fit
from undiffuse.utils.terminal import log
from undiffuse.utils.text import plural, size_text

GivenLike = ImageLike | Sequence[ImageLike]
"""An image file, a folder or an archive of them, an image, or several: see `ImageLike`. An array `(n, height, width,
channels)` and a tensor `(n, channels, height, width)` are n images."""

OPTION = "condition"
"""Its name in messages."""


@dataclass(frozen=True)
class GivenImages:
    """Images in the size in which a model is told of them."""

    names: tuple[str, ...]
    """Of their files; "image 0" and so on of images without one."""
    pixels: UInt8[Tensor, "n c k l"]

    @property
    def digest(self) -> str:
        """Of the pixels."""
        return hashlib.sha256(self.pixels.numpy().tobytes()).hexdigest()

    def of(self, turns: Sequence[int]) -> UInt8[Tensor, "b c k l"]:
        """The image of each turn, over and over again."""
        return self.pixels[[turn % len(self.pixels) for turn in turns]]


def read_given(given: GivenLike, size: Size, fit: Fit, channels: int, factor: int = 1) -> GivenImages:
    """The images at `size`, or smaller by `factor`, decoded as training decodes; a notice says what was resized.

    One that is at least as large as `size` is brought to it and then made smaller as in training.

    Raises:
        FileNotFoundError, ValueError: there is no such file or folder, or an image cannot be read.
    """
    names, pixels, resized = [], [], Counter[str]()
    for name, image in _opened(given):
        made, how = _prepared(image, size, fit, channels, factor)
        names.append(name)
        pixels.append(made)
        resized[how] += 1
    small = size_text(small_size(size, factor))
    for how, count in resized.items():
        if how:
            log.info(f"--{OPTION}: {count:,} of {plural(len(names), 'image')} {how.format(small)}.")
    return GivenImages(tuple(names), torch.stack(pixels))


def _prepared(
    image: PIL.Image.Image, size: Size, fit: Fit, channels: int, factor: int
) -> tuple[UInt8[Tensor, "c k l"], str]:
    """The pixels, and how they were made if the image had another size."""
    small, own, unscaled = small_size(size, factor), (image.height, image.width), unscaled_size(image, size, fit)
    if factor > 1 and unscaled[0] >= size[0] and unscaled[1] >= size[1]:
        x0 = to_signed_range(prepared(image, size, fit, channels)[None])
        return reduced(x0, factor)[0], "made smaller, to {}, as in training"
    how = {"crop": "cropped or resized to {}", "pad": "padded or resized to {}", "stretch": "resized to {}"}[fit]
    return prepared(image, small, fit, channels), "" if own == small else how


def _opened(given: GivenLike) -> Iterator[tuple[str, PIL.Image.Image]]:
    """Each image whole and upright, with its name."""
    if isinstance(given, str | Path) and not _is_file_of_image(given):
        for image in open_source(given, split="all").images():
            yield image.name, _upright(image)
    elif isinstance(given, str | Path):
        yield printable(Path(given).name), open_image(given, OPTION)
    else:
        for i, each in enumerate(_several(given)):
            name = printable(Path(each).name) if isinstance(each, str | Path) else f"image {i}"
            yield name, open_image(each, OPTION)


def _upright(image: Image) -> PIL.Image.Image:
    try:
        with image.open() as opened:
            whole = upright(opened)
            return whole.copy() if whole is opened else whole
    except Exception as error:  # Damaged files make Pillow raise nearly anything.
        if isinstance(error, MemoryError):
            raise
        raise ValueError(f"--{OPTION}: {image.name} cannot be read ({in_words(error)}): remove it.") from error


def _several(given: Any) -> list[Any]:
    """One image as a list of one."""
    several = given.ndim == 4 if isinstance(given, np.ndarray | Tensor) else isinstance(given, list | tuple)
    found = list(given) if several else [given]
    if not found:
        raise ValueError(f"--{OPTION} has no images: give at least one.")
    return found


def _is_file_of_image(path: str | Path) -> bool:
    found = Path(path).expanduser()
    return found.suffix.lower() in SUFFIXES and not found.is_dir()
