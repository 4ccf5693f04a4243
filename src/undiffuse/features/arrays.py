"""Images in arrays: NumPy arrays, torch tensors, and .npy and .npz files."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from undiffuse.data.decoding import to_channels
from undiffuse.data.paths import DataLike, is_remote
from undiffuse.data.readers.arrays import as_images, is_array_file, open_array


def find_array(data: DataLike) -> UInt8[np.ndarray, "n h w c"] | None:
    """The images, if `data` is an array, a tensor, or the path of an .npy or .npz file; None otherwise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `open_array` and `as_images`.
    """
    if isinstance(data, np.ndarray | Tensor):
        return as_images(data)
    if isinstance(data, str | Path) and not is_remote(data) and is_array_file(Path(data)):
        return open_array(Path(data).expanduser())
    return None


def to_rgb(pixels: UInt8[np.ndarray, "b h w c"]) -> UInt8[np.ndarray, "b h w 3"]:
    """Repeats gray three times, and lays RGBA on white as `data.decoding` does."""
    if pixels.shape[3] == 1:
        return np.repeat(pixels, 3, axis=3)
    if pixels.shape[3] == 4:
        return np.stack([np.asarray(to_channels(Image.fromarray(image), 3)) for image in pixels])
    return pixels
