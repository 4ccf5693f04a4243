"""A first look at the headers of all images, whose modes and sizes decide the automatic settings."""

from collections import Counter
from dataclasses import dataclass

from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from undiffuse.data.decoding import has_alpha, is_gray
from undiffuse.data.image_files import orientation
from undiffuse.data.source import Source
from undiffuse.utils.parsing import parse_size
from undiffuse.utils.terminal import track
from undiffuse.utils.text import size_text

AUTO_SIDE = 64
"""The longest side that is chosen automatically: what a small machine can train."""

AUTO_MULTIPLE = 8
"""Automatic sizes are multiples of this, because networks halve them several times."""


@dataclass(frozen=True)
class Survey:
    """What the headers say. Images with an unreadable header are not counted; decoding names them."""

    gray: int
    color: int
    alpha: int
    sizes: dict[str, int]
    """How many images have each size, as "HxW"."""

    @property
    def channels(self) -> int:
        """4 if every image has alpha, 1 if every image is gray without alpha, 3 otherwise."""
        total = self.gray + self.color + self.alpha
        if total and self.alpha == total:
            return 4
        return 1 if total and self.gray == total else 3

    @property
    def size(self) -> tuple[int, int]:
        """The images' own size if they share one, as a multiple of 8 and at most 64; otherwise 64x64."""
        if len(self.sizes) != 1:
            return AUTO_SIDE, AUTO_SIDE
        height, width = parse_size(next(iter(self.sizes)))
        shrink = min(1.0, AUTO_SIDE / max(height, width))
        height, width = (
            max(2 * AUTO_MULTIPLE, round(side * shrink / AUTO_MULTIPLE) * AUTO_MULTIPLE) for side in (height, width)
        )
        return height, width


def survey(source: Source) -> Survey:
    """Opens every image, without resizing any."""
    kinds: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for image in track(source.images(), "looking at images", source.total_images):
        try:
            with image.open() as opened:
                height, width = upright_size(opened)
                kinds["alpha" if has_alpha(opened) else "gray" if is_gray(opened) else "color"] += 1
                sizes[size_text((height, width))] += 1
        except Exception:  # Pillow raises many kinds; decoding names the file and the reason.
            continue
    return Survey(kinds["gray"], kinds["color"], kinds["alpha"], dict(sizes))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width after EXIF orientation is applied; a PNG without EXIF at its start is decoded."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # Some versions of Pillow swap a TIFF's width and height themselves.
        width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return (width, height) if orientation(image) >= 5 else (height, width)
