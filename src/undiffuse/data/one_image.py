"""One image or mask that a user brings, at a model's size, by the rules that training images follow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, UInt8
from PIL import ImageOps
from torch import Tensor

from undiffuse.data.decoding import decode, to_channels
from undiffuse.data.image_files import in_words, open_image_file, upright
from undiffuse.data.paths import printable
from undiffuse.data.pixels import to_nchw
from undiffuse.data.readers.sequence import to_image
from undiffuse.utils.names import Fit
from undiffuse.utils.text import size_text

ImageLike = str | Path | PIL.Image.Image | np.ndarray | Tensor
"""An image file, a PIL image, a uint8 array (height, width, channels) or a uint8 tensor (channels, height, width)."""

MaskLike = ImageLike | Sequence[Sequence[bool]]
"""A mask as an image, or as booleans (height, width): an array, a tensor, or rows in a list; True is white."""

Size = tuple[int, int]
"""Height and width."""

SAME_SHAPE = 0.02
"""Ratios of height to width count as equal up to this: sizes are whole numbers."""


def open_image(image: ImageLike, what: str = "image") -> PIL.Image.Image:
    """The image whole and upright; `what` is the option that names it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image, is damaged, or is too large to be decoded safely.
    """
    where = printable(str(Path(image).expanduser().absolute())) if isinstance(image, str | Path) else "what was given"
    try:
        with _opened(image) as opened:
            whole = upright(opened)
            return whole.copy() if whole is opened else whole
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--{what}: there is no file at {where}.") from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"--{what}: {where} is not an image: give a JPEG or PNG file.") from error
    except Exception as error:  # Damaged files make Pillow raise nearly anything.
        if isinstance(error, MemoryError):
            raise
        raise ValueError(f"--{what}: {where} cannot be read ({in_words(error)}): give a JPEG or PNG file.") from error


def open_mask(mask: MaskLike) -> PIL.Image.Image:
    """The mask as an image, white where its booleans are True.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither an image nor booleans of one image.
    """
    if isinstance(mask, str | Path | PIL.Image.Image):
        return open_image(mask, "mask")
    try:
        array = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask)
    except ValueError as error:  # Rows of different lengths.
        raise ValueError("--mask has rows of different lengths: give booleans (height, width).") from error
    if isinstance(mask, np.ndarray | Tensor) and array.dtype == np.uint8:
        return open_image(mask, "mask")
    if array.dtype != bool:
        raise ValueError(
            f"--mask has values of type {array.dtype}: give booleans, True where pixels are regenerated, or uint8 "
            "pixels, which are white there."
        )
    shape = array.shape
    if array.ndim == 3 and 1 in (shape[0], shape[2]):  # A tensor's channel comes first, an array's last.
        array = array[0] if shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or 0 in shape:
        raise ValueError(f"--mask has the shape {shape}: give booleans (height, width), one for each pixel.")
    return PIL.Image.fromarray(array.astype(np.uint8) * 255)


def prepared(image: PIL.Image.Image, size: Size, fit: Fit, channels: int) -> UInt8[Tensor, "c h w"]:
    """The image as training would read it: see `decoding.decode`."""
    return to_nchw(decode(image, size, fit, channels)[None].copy())[0]


def prepared_mask(mask: PIL.Image.Image, image: PIL.Image.Image, size: Size, fit: Fit) -> Bool[Tensor, "h w"]:
    """Which pixels of the prepared image are white, or transparent, in a mask: one of the image or of the prepared one.

    The mask is cropped or padded as the image is, and resized to the nearest pixels.

    Raises:
        ValueError: it has the shape of neither, or nothing in it is white.
    """
    own, whole = (mask.height, mask.width), (image.height, image.width)
    if not any(_same_shape(own, other) for other in (whole, size)):
        raise ValueError(
            f"--mask is {size_text(own)}, but the image is {size_text(whole)}: give a mask of the image's shape."
        )
    gray = to_channels(mask, 1)
    width_height, nearest = (size[1], size[0]), PIL.Image.Resampling.NEAREST
    if fit == "crop":
        fitted = ImageOps.fit(gray, width_height, nearest)
    elif fit == "pad":
        fitted = ImageOps.pad(gray, width_height, nearest)
    else:
        fitted = gray.resize(width_height, nearest)
    regenerated = torch.from_numpy(np.asarray(fitted) >= 128)
    if not regenerated.any():
        raise ValueError(f"--mask has no white at {size_text(size)}: paint white what is to be regenerated.")
    return regenerated


def unscaled_size(image: PIL.Image.Image, size: Size, fit: Fit) -> Size:
    """The size in the proportions of `size` at which the image is cropped or padded without being resized."""
    if fit == "stretch":
        return image.height, image.width
    ratios = image.height / size[0], image.width / size[1]
    scale = min(ratios) if fit == "crop" else max(ratios)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _opened(image: ImageLike) -> PIL.Image.Image:
    if isinstance(image, str | Path):
        return open_image_file(Path(image).expanduser())
    return to_image(image)


def _same_shape(one: Size, other: Size) -> bool:
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= SAME_SHAPE
