"""What a picture was before it was decoded: learnt once, while decoding, and kept beside the pixels."""

from typing import NamedTuple

from PIL import Image

from undiffuse.data.sources import Picture
from undiffuse.data.survey import upright_size


class Original(NamedTuple):
    """One picture's file, as its header describes it."""

    name: str
    """Its path inside the source, or its number."""
    split: str
    """train, val or test; empty where the source has no splits."""
    format: str
    """JPEG, PNG and so on; empty for pictures that were never files."""
    mode: str
    """Pillow's word for its channels: L, RGB, RGBA, P, CMYK and so on."""
    height: int
    """Of the upright picture, in pixels."""
    width: int


def original(picture: Picture, image: Image.Image) -> Original:
    """What `image`, opened but not yet decoded, says of the picture."""
    return Original(picture.name, picture.split, image.format or "", image.mode, *upright_size(image))
