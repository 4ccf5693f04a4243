"""Hostile .npy and .npz files."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers.hostile.archives import end, entry, local, raw
from helpers.hostile.case import Case
from helpers.hostile.images import zeros
from undiffuse.features.image_sets import DataSpec, open_set

NO_ARRAY = r"images\.np[yz] is not an array of images \("
DAMAGED = NO_ARRAY + r"its header is damaged\): save one with numpy\.save"
CONVERT = r"convert floats from 0 to 1 with \(255 \* x\)"


def array(name: str, make: bytes | Callable[[Path], object], sentence: str, file: str = "images.npy") -> Case:
    def write() -> None:
        if isinstance(make, bytes):
            Path(file).write_bytes(make)
        else:
            make(Path(file))

    return Case(name, write, lambda: measuring(file), sentence)


def measuring(file: str) -> str:
    """Opens an array as `measure` and `evaluate` do."""
    images = open_set(DataSpec(file))
    return f"read: {images.description}, {images.size}, sum {int(images.read([0]).sum())}"


def npy(header: str, content: bytes = bytes(64), version: int = 1) -> bytes:
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<L", len(text)) + text + content


def of(shape: str, dtype: str = "'|u1'", order: bool = False) -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, content)
    return file.getvalue()


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in members.items():
                file.writestr(name, content)

    return write


def npz_of_zeros(path: Path) -> None:
    """Unpacks to 2 GB, from 2 MB."""
    content = raw(zeros(2**31))
    start = local(b"a.npy", 2**31, len(content), method=8) + content
    directory = entry(b"a.npy", 2**31, len(content), method=8)
    path.write_bytes(start + directory + end(1, len(directory), len(start)))


GRAY = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)

CASES: list[Case] = [
    array(
        "npy that claims 1 TB",
        npy(of("(1000000, 1000, 1000)")),
        "claims 1,000,000,000,000 bytes of numbers, and it holds 64",
    ),
    array("npy that claims 2**200 numbers", npy(of(f"({2**100}, {2**100}, 3)")), NO_ARRAY + "its header"),
    array("npy of -1 images", npy(of("(-1, 8, 8)")), NO_ARRAY + "it does not hold plain numbers"),
    array("npy of Python objects", npy(of("(1, 8, 8)", "'|O'")), "Python objects, which could run"),
    array("npy of a pickle", b"\x80\x04cos\nsystem\n(S'touch executed'\ntR.", DAMAGED),
    array("npy whose header is a call", npy("{'descr': open('x'), 'fortran_order': False, 'shape': (1,)}"), DAMAGED),
    array("npy whose header never ends", npy("{'descr': '|u1', 'fortran_order': False, 'shape': ("), DAMAGED),
    array("npy whose header is 5,000 brackets", npy("(" * 5000), DAMAGED),
    array("npy whose header is 5,000 minus signs", npy("-" * 5000 + "1"), DAMAGED),
    array("npy whose header claims 4 GiB", b"\x93NUMPY\2\0" + struct.pack("<L", 2**32 - 1) + bytes(64), DAMAGED),
    array("npy whose header has 1 MiB", npy(of("(1, 8, 8)") + " " * 2**20, version=2), DAMAGED),
    array("npy of version 9", b"\x93NUMPY\x09\0" + bytes(64), DAMAGED),
    array("npy of records", npy(of("(1, 8, 8)", "[('a', '|u1'), ('b', '<f8')]")), "plain numbers"),
    array("npy of texts", npy(of("(1, 8, 8)", "'<U1000000'")), NO_ARRAY),
    array("npy of floats", saved(np.zeros((2, 8, 8, 3), np.float32)), CONVERT),
    array("npy of 64-bit integers", saved(np.zeros((2, 8, 8), np.int64)), "holds int64 of shape"),
    array("npy of one number", saved(np.uint8(1)), r"holds uint8 of shape \(\)"),
    array("npy of no images", saved(np.zeros((0, 8, 8), np.uint8)), r"holds uint8 of shape \(0, 8, 8\)"),
    array(
        "npy with channels first",
        saved(np.zeros((2, 3, 8, 8), np.uint8)),
        r"give uint8 of shape \(n, height, width, 3\)",
    ),
    array("npy of gray images", saved(GRAY), r"read: images, split all, 3 images, \(8, 8\), sum 6048"),
    array("npy of gray images in Fortran's order", saved(np.asfortranarray(GRAY)), "sum 6048"),
    array("empty npy", b"", DAMAGED),
    array(
        "npz with one array of gray images",
        npz({"arr_0.npy": saved(GRAY)}),
        r"3 images, \(8, 8\), sum 6048",
        "images.npz",
    ),
    array(
        "npz with two arrays",
        npz({"a.npy": saved(GRAY), "b.npy": saved(GRAY)}),
        "it holds 2 arrays, and one is read",
        "images.npz",
    ),
    array(
        "npz of 60 GB of zeros",
        npz({"a.npy": npy(of("(20000000, 1000, 3)"))}),
        "60,000,000,000 bytes, which would be unpacked",
        "images.npz",
    ),
    array("npz of 2 GB of zeros without a header", npz_of_zeros, NO_ARRAY + "its header is damaged", "images.npz"),
    array("npz of Python objects", npz({"a.npy": npy(of("(1, 8, 8)", "'|O'"))}), "Python objects", "images.npz"),
    array("npz packed with bzip2", npz({"a.npy": saved(GRAY)}, zipfile.ZIP_BZIP2), "an unusual way", "images.npz"),
    array(
        "npz that is cut off",
        npz({"a.npy": npy(of("(9, 8, 8)"))}),
        "claims 576 bytes of numbers, and it holds 64",
        "images.npz",
    ),
    array("npz that is text", b"hello", "its zip archive is damaged", "images.npz"),
]
