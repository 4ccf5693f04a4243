"""Images in arrays: NumPy arrays, torch tensors and .npy files."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from undiffuse.data.decoding import to_channels
from undiffuse.data.paths import DataLike
from undiffuse.data.pixels import to_nhwc


def find_array(data: DataLike) -> UInt8[np.ndarray, "n h w c"] | None:
    """The images, if `data` is an array, a tensor, or the path of an .npy file; None otherwise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `open_npy` and `as_images`.
    """
    if isinstance(data, np.ndarray | Tensor):
        return as_images(data)
    if isinstance(data, str | Path) and str(data).lower().endswith(".npy"):
        return open_npy(Path(data).expanduser())
    return None


def open_npy(path: Path) -> UInt8[np.ndarray, "n h w c"]:
    """The images in an .npy file, mapped from disk.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not an array of images.
    """
    if path.is_dir():
        raise ValueError(f"{path.absolute()} is a folder, not an array: rename it so that it does not end in .npy.")
    try:
        # Not np.load, which also opens archives of arrays and pickles.
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # The header is parsed as Python; hostile ones make numpy raise nearly anything.
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise ValueError(
            f"{path.absolute()} is not an array of images ({reason}): save one with numpy.save."
        ) from error
    return as_images(array, f"{path.absolute()} holds")


def as_images(data: np.ndarray | Tensor, subject: str = "The data is") -> UInt8[np.ndarray, "n h w c"]:
    """Checks images, and puts their channels last.

    Args:
        data: An array (n, height, width) or (n, height, width, channels), or a tensor (n, height, width) or
            (n, channels, height, width).
        subject: The beginning of the error message.

    Raises:
        ValueError: it has another shape, or is not uint8.
    """
    if isinstance(data, Tensor) and data.ndim in (3, 4):
        array = to_nhwc(data if data.ndim == 4 else data[:, None])
    else:
        array = np.asarray(data[..., None] if data.ndim == 3 else data)
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or array.dtype != np.uint8 or 0 in array.shape:
        raise ValueError(
            f"{subject} {str(data.dtype).removeprefix('torch.')} of shape {tuple(data.shape)}: give uint8 of shape "
            f"{'(n, 3, height, width)' if isinstance(data, Tensor) else '(n, height, width, 3)'}, pixels rounded to 0 "
            "to 255."
        )
    return array


def to_rgb(pixels: UInt8[np.ndarray, "b h w c"]) -> UInt8[np.ndarray, "b h w 3"]:
    """Repeats gray three times, and lays RGBA on white as `data.decoding` does."""
    if pixels.shape[3] == 1:
        return np.repeat(pixels, 3, axis=3)
    if pixels.shape[3] == 4:
        return np.stack([np.asarray(to_channels(Image.fromarray(image), 3)) for image in pixels])
    return pixels
