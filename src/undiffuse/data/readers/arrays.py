"""Arrays of images in NumPy's files: .npy, mapped from disk, and .npz with one array."""

import math
import zipfile
import zlib
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from undiffuse.data.paths import printable, source_name
from undiffuse.data.pixels import to_nhwc
from undiffuse.data.readers.sequence import sequence_source
from undiffuse.data.readers.zips import METHODS, open_zip
from undiffuse.data.source import Source
from undiffuse.utils.limits import how_to_raise, scaled
from undiffuse.utils.names import Split

SUFFIXES = (".npy", ".npz")

MAX_BYTES = 2**30
"""Of the array in an .npz, which is unpacked into memory; an .npy may have any size."""

CONVERSIONS = (
    "convert floats from 0 to 1 with (255 * x).round().astype('uint8'), those from -1 to 1 with "
    "(127.5 * (x + 1)).round().clip(0, 255).astype('uint8')"
)


def is_array_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def array_source(path: Path, split: Split = "auto") -> Source:
    """The images in an .npy or .npz file, named by their numbers.

    Raises:
        FileNotFoundError, ValueError: see `open_array`; or `split` is not auto or all.
    """
    where = printable(str(path.absolute()))
    if split not in ("auto", "all"):
        raise ValueError(f"{where} has no split {split}: give the array of that split, and leave --split out.")
    return replace(sequence_source(open_array(path)), name=source_name(path), where=where)


def open_array(path: Path) -> UInt8[np.ndarray, "n h w c"]:
    """The images in an .npy file, mapped from disk, or in an .npz with one array, in memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not an array of images.
    """
    where = printable(str(path.absolute()))
    if path.is_dir():
        raise ValueError(f"{where} is a folder, not an array: rename it so that it does not end in {path.suffix}.")
    try:
        array = _from_npz(path) if path.suffix.lower() == ".npz" else _from_npy(path)
    except _NoArray as error:
        raise ValueError(f"{where} is not an array of images ({error}): save one with numpy.save.") from error
    return as_images(array, f"{where} holds")


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
        form = "(n, 3, height, width)" if isinstance(data, Tensor) else "(n, height, width, 3)"
        dtype = str(data.dtype).removeprefix("torch.")
        fix = f"; {CONVERSIONS}" if dtype.startswith(("float", "bfloat")) else ""
        raise ValueError(
            f"{subject} {dtype} of shape {tuple(data.shape)}: give uint8 of shape {form} or (n, height, width), pixels "
            f"rounded to 0 to 255{fix}."
        )
    return array


class _NoArray(Exception):
    """Its message says why a file is no array."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _from_npy(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        header, offset = _read_header(file), file.tell()
    held = path.stat().st_size - offset
    if header.nbytes > held:
        raise _NoArray(f"its header claims {header.nbytes:,} bytes of numbers, and it holds {held:,}")
    order = "F" if header.is_fortran else "C"
    if not header.nbytes:  # Nothing can be mapped.
        return np.empty(header.shape, header.dtype)
    return np.memmap(path, header.dtype, "r", offset, header.shape, order)


def _from_npz(path: Path) -> np.ndarray:
    try:
        with open_zip(path) as archive:
            entries = archive.infolist()
            if len(entries) != 1:
                raise _NoArray(f"it holds {len(entries):,} arrays, and one is read: save that one")
            (entry,) = entries
            if entry.flag_bits & 0x41 or entry.compress_type not in METHODS:
                raise _NoArray("it is encrypted, or compressed in an unusual way")
            with archive.open(entry) as file:
                header = _read_header(file)
                if header.nbytes > scaled(MAX_BYTES):
                    raise _NoArray(
                        f"its header claims {header.nbytes:,} bytes, which would be unpacked into memory: save it as "
                        f".npy, or {how_to_raise(header.nbytes, scaled(MAX_BYTES))}"
                    )
                array = np.empty(header.nbytes, np.uint8)
                done = 0
                while done < len(array) and (block := file.read(2**20)):
                    array[done : done + len(block)] = np.frombuffer(block, np.uint8)[: len(array) - done]
                    done += len(block)
                if done < len(array):
                    raise _NoArray(f"its header claims {header.nbytes:,} bytes of numbers, and it holds {done:,}")
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise _NoArray("its zip archive is damaged") from error
    return array.view(header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")


def _read_header(file: IO[bytes] | BufferedIOBase) -> _Header:
    """What an .npy says it holds; numpy parses it as a Python literal, which may fail in nearly any way."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        header = _Header(*read(file))
    except Exception as error:
        raise _NoArray("its header is damaged") from error
    if header.dtype.hasobject:
        raise _NoArray("it holds Python objects, which could run their author's code")
    if header.dtype.kind not in "uifbc" or any(side < 0 for side in header.shape):
        raise _NoArray("it does not hold plain numbers")
    return header
