"""What an image was before it was decoded: learned once, while decoding, and kept beside the pixels."""

from typing import NamedTuple

from PIL import Image

from undiffuse.data.source import SourceImage
from undiffuse.data.survey import upright_size


class Original(NamedTuple):
    """One image's file, as its header describes it."""

    name: str
    """Its path inside the source, or its number."""
    split: str
    """train, val or test; empty where the source has no splits."""
    format: str
    """JPEG, PNG and so on; empty for images that were never files."""
    mode: str
    """Pillow's word for its channels: L, RGB, RGBA, P, CMYK and so on."""
    height: int
    """Of the upright image, in pixels."""
    width: int


def original(image: SourceImage, opened: Image.Image) -> Original:
    """What `opened`, opened but not yet decoded, says of the image."""
    return Original(image.name, image.split, opened.format or "", opened.mode, *upright_size(opened))
