"""Image files, opened and decoded within bounds of memory and time, whatever they hold."""

import io
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from undiffuse.data.image_headers import check_exif, read_header
from undiffuse.utils.limits import Budget, how_to_raise, scaled
from undiffuse.utils.text import printable

MAX_PIXELS = 80_000_000
"""A larger image is refused or, if it is a JPEG, decoded at a half, a quarter or an eighth of its size. Twelve bytes
each are needed at most: decoded, rotated and converted."""

MAX_SIDE = 2**20
"""Resizing needs memory for every row and column."""

MAX_IMAGE_BYTES = 256 * 2**20
"""A larger file is refused; no photo comes close."""

MAX_SLOW_PIXELS = 4_000_000
"""Of what Pillow decodes in Python, number by number: some forms of PPM and BMP that no camera writes."""

MAX_REDUCED_PIXELS = 2**30
"""Of a JPEG that is decoded reduced: all of it is read even so."""

BYTES_PER_PIXEL = 12

FACTORS = {"WEBP": 2}
"""Of the memory that others need: WebP's decoder keeps several copies."""

OPENERS = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
"""The formats that are opened. Others run programs (EPS), or are too rare to be anybody's photos."""

MEANINGS = {
    "MAX_TEXT": "a text or color profile in it unpacks to more than 1 MiB, or all of them to more than 64 MiB",
    "truncated": "it is cut off",
    "not enough image data": "it is cut off",
    "buffer is not large enough": "it is cut off",
    "broken data stream": "its pixels are damaged",
    "broken PNG": "its pixels are damaged",
    "unrecognized data stream": "its pixels are damaged",
    "decoder": "its pixels are damaged",
    "Token too long": "its header is damaged",
    "invalid literal": "its header is damaged",
}
"""What parts of Pillow's messages mean."""

_decoding = Budget()


def open_image_file(where: Path | bytes) -> PIL.Image.Image:
    """The image in a file, or in the content of one, not yet decoded; its size has been checked.

    Pillow's own check is not used: it knows one limit for all formats, and would warn of images that pass here.

    Raises:
        OSError: the file cannot be read.
        UnidentifiedImageError: it is not an image, or not one of these formats.
        ValueError: it is damaged, or would take too much memory or time; the reason.
    """
    with io.BytesIO(where) if isinstance(where, bytes) else open(where, "rb") as file:
        try:
            _check_length(file.seek(0, io.SEEK_END))
            header = read_header(file)
        except (EOFError, struct.error, IndexError) as error:
            raise ValueError("it is cut off") from error
    if header is None:
        raise UnidentifiedImageError("not an image, despite its name")
    _check_pixels(header.pixels, header.format)
    try:
        # Given a path, Pillow opens the file itself, and closes it with the image.
        image = OPENERS[header.format](io.BytesIO(where) if isinstance(where, bytes) else str(where))  # ty: ignore
    except SyntaxError as error:
        raise UnidentifiedImageError("its header is damaged, or it is not an image, despite its name") from error
    try:
        _check(image, header.format, header.whole)
    except ValueError:
        image.close()
        raise
    return image


@contextmanager
def decoding(image: PIL.Image.Image) -> Generator[None, None, None]:
    """While the image is decoded inside: threads wait here so that together they keep within the limit."""
    pixels = min(image.width * image.height, scaled(MAX_PIXELS))
    needed = pixels * BYTES_PER_PIXEL * FACTORS.get(image.format or "", 1)
    with _decoding.take(needed, scaled(MAX_PIXELS) * BYTES_PER_PIXEL):
        yield


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image whole and upright; the same object if it is so already. Too large a JPEG is decoded reduced."""
    limit = scaled(MAX_PIXELS)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.width * image.height > limit:
        scale = next(scale for scale in (2, 4, 8) if image.width * image.height <= scale**2 * limit)
        image.draft(None, (image.width // scale, image.height // scale))
    image.load()
    return ImageOps.exif_transpose(image) if orientation(image) != 1 else image


def orientation(image: PIL.Image.Image) -> int:
    """EXIF's orientation, from 1 (upright) to 8. From 5 on, width and height are swapped.

    Raises:
        ValueError: the file holds too much besides its pixels.
    """
    if isinstance(image, PngImagePlugin.PngImageFile):
        image.load()  # It may stand behind the pixels.
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        check_exif(exif)
    text = image.info.get("Raw profile type exif")
    if exif is None and isinstance(text, str):
        check_exif(bytes.fromhex("".join(text.split("\n")[3:])))
    return image.getexif().get(0x0112, 1)


def in_words(error: Exception) -> str:
    """Why an image cannot be read, for whoever gave it: of what Pillow says, what tells of Python is left out."""
    if isinstance(error, FileNotFoundError):
        return "a broken link, or a file that no longer exists"
    said = printable(str(error)).strip()
    for part, meaning in MEANINGS.items():
        if part.lower() in said.lower():
            return meaning
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return said or "its content is damaged"


def _check_length(length: int) -> None:
    if length > scaled(MAX_IMAGE_BYTES):
        raise ValueError(
            f"it has {length:,} bytes, more than an image: {how_to_raise(length, scaled(MAX_IMAGE_BYTES))}"
        )


def _check(image: PIL.Image.Image, format: str, whole: bool) -> None:
    """Raises ValueError for an image that would take too much memory or time to decode."""
    width, height = image.size
    pixels = width * height
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"it claims {width:,} x {height:,} pixels, and a side may have {MAX_SIDE:,}: crop it")
    if format == "JPEG" and pixels > scaled(MAX_PIXELS):
        if whole:
            raise ValueError(
                f"{_claims(pixels)}; a progressive JPEG of more than {_megapixels(scaled(MAX_PIXELS))} cannot be "
                "decoded reduced: save it again as a baseline JPEG, or smaller"
            )
        if pixels > scaled(MAX_REDUCED_PIXELS):
            raise ValueError(f"{_claims(pixels)}, {_more_than(pixels, scaled(MAX_REDUCED_PIXELS))}")
        return
    _check_pixels(pixels, format)
    slow = any(tile[0] in PIL.Image.DECODERS for tile in getattr(image, "tile", ()))
    if slow and pixels > MAX_SLOW_PIXELS:
        raise ValueError(f"{_claims(pixels)} in a rare form of {format} that is slow to read: save it again, as a PNG")


def _check_pixels(pixels: int, format: str) -> None:
    limit = scaled(MAX_PIXELS) // FACTORS.get(format, 1)
    if pixels > limit:
        raise ValueError(f"{_claims(pixels)}, {_more_than(pixels, limit)}")


def _claims(pixels: int) -> str:
    return f"it claims {_megapixels(pixels)}"


def _more_than(pixels: int, limit: int) -> str:
    return f"more than the {_megapixels(limit)} that are decoded: {how_to_raise(pixels, limit)}"


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:,.0f} megapixels"
