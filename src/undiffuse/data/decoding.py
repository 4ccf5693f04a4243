"""From an image file to a uint8 array (height, width, channels), by documented rules."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from undiffuse.data.image_files import upright
from undiffuse.utils.names import Fit

GRAY_MODES = ("1", "L", "I", "F")
"""Pillow's modes with one channel; those that begin with `I;` (16 bits) are gray too."""

STRIP_PIXELS = 2**22
"""A larger image is converted in strips of so many pixels: on the way some kinds take 32 bytes for each."""


def decode(image: Image.Image, size: tuple[int, int], fit: Fit, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """The image upright, with `channels` (1 gray, 3 RGB, 4 RGBA), at `size` (height, width).

    - EXIF orientation is applied. An animation gives its first frame. A huge JPEG is decoded reduced: see `upright`.
    - 16-bit gray is divided by 257; floating-point gray is expected to be from 0 to 1.
    - Palettes become RGB, or RGBA if they have a transparent entry. CMYK and other color spaces become RGB.
    - Transparent images go onto white if alpha is not kept. If alpha is requested but absent, it is opaque.
    - `crop` fills the size and crops the center, `pad` shows the whole image on black (transparent with alpha),
      `stretch` changes the aspect ratio. Resizing is bicubic with antialiasing, on premultiplied alpha.

    Raises:
        OSError, ValueError: the file is damaged; Pillow may raise nearly anything else for one.
    """
    converted = to_channels(upright(image), channels)
    height, width = size
    bicubic = Image.Resampling.BICUBIC
    if fit == "crop":
        fitted = ImageOps.fit(converted, (width, height), bicubic)
    elif fit == "pad":
        fitted = ImageOps.pad(converted, (width, height), bicubic)
    else:
        fitted = converted.resize((width, height), bicubic)
    return np.asarray(fitted).reshape(height, width, channels)


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """The image in mode L, RGB or RGBA, for 1, 3 or 4 channels; the same object if it has that mode already."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode == mode and (mode == "RGBA" or not has_alpha(image)):
        return image
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        return _converted(image, mode)
    whole = Image.new(mode, image.size)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        whole.paste(_converted(image.crop((0, top, image.width, bottom)), mode), (0, top))
    return whole


def _converted(image: Image.Image, mode: str) -> Image.Image:
    image = _eight_bits(image)
    if has_alpha(image):
        image = image.convert("RGBA")
        if mode != "RGBA":
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image).convert("RGB")
    return image.convert(mode)


def has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def is_gray(image: Image.Image) -> bool:
    return image.mode in GRAY_MODES or image.mode.startswith("I;")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64) / 257
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(0, 1) * 255
    else:
        return image
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
