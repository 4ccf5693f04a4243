"""Images on their way to the editor of the page and back: enlarged to be painted on, and what was painted."""

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from undiffuse.data.one_image import open_image, prepared
from undiffuse.report.grids import to_pil
from undiffuse.utils.names import Fit

EDITOR_SIDE = 384
"""Images are enlarged for painting to about this many pixels."""


def painted(drawn: dict, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Which pixels of the model's image are painted, at least half of each.

    Raises:
        ValueError: none is.
    """
    mask = np.zeros(size, bool)
    for layer in drawn.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A").resize((size[1], size[0]), PIL.Image.Resampling.BOX)
        mask |= np.asarray(alpha) >= 128
    if not mask.any():
        raise ValueError("Nothing is painted: paint over what is to be regenerated.")
    return torch.from_numpy(mask)


def enlarged(pixels: UInt8[Tensor, "c h w"]) -> PIL.Image.Image:
    """The image with each of its pixels enlarged to a square."""
    image = to_pil(pixels)
    factor = max(1, EDITOR_SIDE // max(image.size))
    large = image.resize((image.width * factor, image.height * factor), PIL.Image.Resampling.NEAREST)
    return large.convert("RGBA")


def editor_value(pixels: UInt8[Tensor, "c h w"]) -> dict:
    """The image for painting on."""
    return {"background": enlarged(pixels), "layers": [], "composite": None}


def as_read(image: PIL.Image.Image, shape: tuple[int, int, int], fit: Fit = "crop") -> UInt8[Tensor, "c h w"]:
    """An image as a model of this shape reads it; one that was enlarged for the editor is what it was, to the byte."""
    channels, height, width = shape
    image, factor = open_image(image), max(1, image.width // width)
    if (image.height, image.width) == (factor * height, factor * width):
        image = image.reduce(factor)  # Other filters would look beyond the edges of an enlarged pixel.
    return prepared(image, (height, width), fit, channels)
