"""A .zip or .tar of images, read in place: nothing is extracted to disk, and names inside are never used as paths."""

import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import PIL.Image

from undiffuse.data.paths import FORMATS, is_image, printable, read_layout, source_name
from undiffuse.data.source import Image, Source
from undiffuse.utils.names import Split
from undiffuse.utils.terminal import Meter

MAX_IMAGE_BYTES = 512 * 2**20
"""A larger file in an archive is refused; no photo comes close."""

MAX_EXPANSION = 200
"""Images barely compress. An archive that unpacks to over this many times its size, and over 1 GiB, is a bomb."""

MAX_HEADER_BYTES = 2**20
"""The limit for a .tar's long names and extended headers, which are read into memory whole."""

BLOCK_BYTES = 2**22
"""An archive is read in blocks of this size."""

END_BYTES = 2**20
"""Read at each end of an archive to tell whether it is still the same."""

HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)
"""What reading a damaged archive raises."""


def archive_source(path: Path, split: Split = "auto") -> Source:
    """The images in the archive `path`; its folders are classes.

    Raises:
        ValueError: it is not an archive, is a decompression bomb, contains no images, or has no such split.
    """
    path = path.absolute()
    where = printable(str(path))
    places: dict[str, int] = {}
    try:
        for member in _members(path):
            places.setdefault(member.name, member.place)
    except DAMAGED as error:
        raise ValueError(
            f"{where} is not a readable .zip or .tar ({error}): give a folder or an archive of images."
        ) from error
    if not places:
        raise ValueError(f"{where} contains no images: give an archive with JPEG or PNG files.")
    layout = read_layout(list(places), split, where)
    at = np.array([places[name] for name in layout.names], np.int64)
    del places

    def images(start: int = 0, stop: int | None = None, /) -> Iterator[Image]:
        remaining = {name: (label, of_split) for name, label, of_split in layout.rows(start, stop)}
        for name, size, read, _ in _members(path, int(at[start])) if remaining else ():
            if name in remaining:
                label, of_split = remaining.pop(name)
                yield Image(printable(name), label, _opener(size, read), of_split)
            if not remaining:
                break

    return Source(
        name=source_name(path),
        split=layout.split,
        class_names=layout.class_names,
        total_images=len(layout.names),
        images=images,
        content=partial(_content, path, layout.split),
        signature=lambda: f"{archive_signature(path)}-{layout.split}",
        where=where,
        notices=layout.notices,
    )


def archive_signature(path: Path) -> str:
    """A digest of the archive's path, size, times and both ends, however large it is.

    What it cannot see: a change of other bytes below the file system, while the system's clock was set back, or within
    the clock's tick (some milliseconds; up to two seconds on FAT) after it was read here.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        # The change time too, because the modification time can be set back.
        about = (os.fsencode(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest = hashlib.sha256(repr(about).encode())
        digest.update(file.read(END_BYTES))
        file.seek(max(0, status.st_size - END_BYTES))
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()


class Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], IO[bytes] | None]
    place: int
    """Where reading comes to it: the offset of its header in a .tar, its number in the directory of a .zip."""


def _members(path: Path, place: int = 0) -> Iterator[Member]:
    """The images from `place` on, in the archive's order: a .tar.xz can only be read from front to back."""
    unpacked = 0
    bomb = max(MAX_EXPANSION * path.stat().st_size, 2**30)
    for member in _tar_members(path, place) if _is_tar(path) else _zip_members(path, place):
        unpacked += member.size
        if unpacked > bomb:
            raise ValueError(f"{path} is a decompression bomb: it unpacks to more than {MAX_EXPANSION} times its size.")
        if is_image(member.name):
            yield member


def _is_tar(path: Path) -> bool:
    # Checked first: a .tar whose last file is a .zip looks like a .zip too.
    try:
        with tarfile.open(path, "r:*", tarinfo=_Header):
            return True
    except tarfile.ReadError:
        if zipfile.is_zipfile(path):
            return False
        raise tarfile.ReadError("it looks like neither") from None


def _zip_members(path: Path, place: int) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for number, info in enumerate(archive.infolist()[place:], place):
            if not info.is_dir():
                yield Member(info.filename, info.file_size, partial(archive.open, info), number)


class _Header(tarfile.TarInfo):
    """Refuses a damaged header, which tarfile takes for the end of the archive, and a huge one, which it would read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):
                raise  # Really the end.
            raise tarfile.ReadError(str(error)) from error
        if header.type in HEADER_TYPES and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {header.size:,} bytes")
        return header


def _tar_members(path: Path, place: int) -> Iterator[Member]:
    with tarfile.open(path, "r:*", tarinfo=_Header) as archive:
        if place:
            archive.firstmember = None  # It was read when the archive was opened.  # ty: ignore
            archive.offset = place
        while (info := archive.next()) is not None:
            if info.isfile():  # No links, devices or folders.
                read = partial(archive.extractfile, info)
                yield Member(info.name.removeprefix("./"), info.size, read, info.offset)
            archive.members = []  # Otherwise it keeps every header in memory.  # ty: ignore


def _opener(size: int, read: Callable[[], IO[bytes] | None]) -> Callable[[], PIL.Image.Image]:
    # Bytes are read now, in the archive's order; they may be decoded in another thread.
    try:
        if size > MAX_IMAGE_BYTES:
            raise ValueError(f"it claims {size:,} bytes")
        file = read()
        assert file is not None, "only regular files are read"
        with file:
            content = file.read(MAX_IMAGE_BYTES + 1)
        if len(content) > MAX_IMAGE_BYTES:
            raise ValueError(f"it unpacks to over {MAX_IMAGE_BYTES:,} bytes")
    except Exception as error:  # Encrypted, damaged, an unknown compression: the other images may be fine.
        return partial(_fail, str(error))
    return partial(PIL.Image.open, io.BytesIO(content), formats=FORMATS)


def _fail(reason: str) -> PIL.Image.Image:
    raise ValueError(reason)


def _content(path: Path, split: str) -> str:
    digest, mebibytes = hashlib.sha256(), path.stat().st_size / 2**20
    with open(path, "rb") as file, Meter("reading the archive", mebibytes) as meter:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done = file.tell() / 2**20
            meter.reach(done, f"{done:,.0f}/{mebibytes:,.0f} MiB")
    return f"{digest.hexdigest()}-{split}"
