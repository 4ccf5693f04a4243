"""What each image was like before it was decoded, recorded while decoding and kept with the pixels."""

from typing import NamedTuple

import PIL.Image

from undiffuse.data.source import Image
from undiffuse.data.survey import upright_size


class Original(NamedTuple):
    """An image's file, as its header describes it."""

    name: str
    """Its path inside the source, or its number."""
    split: str
    """train, val or test; empty where the source has no splits."""
    format: str
    """JPEG, PNG and so on; empty for images that did not come from a file."""
    mode: str
    """Pillow's name for its channels: L, RGB, RGBA, P, CMYK and so on."""
    height: int
    """Of the upright image, in pixels."""
    width: int


def original(image: Image, opened: PIL.Image.Image) -> Original:
    """Describes the image from its file, which is opened but not yet decoded."""
    return Original(image.name, image.split, opened.format or "", opened.mode, *upright_size(opened))
