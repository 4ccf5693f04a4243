"""A .zip or .tar of images, read in place: nothing is extracted to disk, and names inside are never used as paths."""

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from undiffuse.data.image_files import MAX_IMAGE_BYTES, in_words, open_image_file
from undiffuse.data.paths import ARCHIVE_SUFFIXES, is_image, left_out, printable, read_layout, source_name, suffix_of
from undiffuse.data.readers.compressed import Refused
from undiffuse.data.readers.tars import open_tar
from undiffuse.data.readers.zips import open_zip, read_entry
from undiffuse.data.source import Image, Source
from undiffuse.utils.limits import scaled
from undiffuse.utils.names import Split
from undiffuse.utils.terminal import Meter
from undiffuse.utils.text import plural

MAX_EXPANSION = 200
"""Images barely compress. An archive that unpacks to over this many times its size, and over 1 GiB, is a bomb."""

MAX_SMALL_MEMBERS = 100_000
MIN_MEMBER_BYTES = 100
"""An archive with more members than that needs so many bytes for each, or they are there to fill the memory."""

MAX_NAME = 1024
"""Characters of a path inside an archive."""

TAR_BLOCK = 512

BLOCK_BYTES = 2**22
"""An archive is read in blocks of this size."""

END_BYTES = 2**20
"""Read at each end of an archive to tell whether it is still the same."""

DAMAGED = (
    Refused,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    ValueError,  # Of numbers and names.
)
"""What reading a damaged archive raises."""


class Bomb(Exception):
    """An archive that would take too much memory or time; its message is the reason."""


def archive_source(path: Path, split: Split = "auto") -> Source:
    """The images in the archive `path`; its folders are classes.

    Raises:
        ValueError: it is not an archive, is a decompression bomb, contains no images, or has no such split.
    """
    path = path.absolute()
    where = printable(str(path))
    places: dict[str, int] = {}
    others: Counter[str] = Counter()
    archives = 0
    try:
        for member in _members(path):
            if is_image(member.name):
                places.setdefault(member.name, member.place)
            elif member.name.lower().endswith(ARCHIVE_SUFFIXES):
                archives += 1
            else:
                others[suffix_of(member.name)] += 1
    except Bomb as error:
        raise ValueError(f"{where} is a decompression bomb: {error}.") from error
    except DAMAGED as error:
        raise ValueError(
            f"{where} is not a readable .zip or .tar ({printable(str(error))}): give a folder or an archive of images."
        ) from error
    inside = plural(archives, "archive")
    if not places and archives:
        raise ValueError(f"{where} contains no images but {inside}, which are not opened: unpack it first.")
    if not places:
        found = f" ({left_out(others)})" if others else ""
        raise ValueError(f"{where} contains no images{found}: give an archive with JPEG or PNG files.")
    layout = read_layout(list(places), split, where)
    notices = [*layout.notices]
    if archives:
        notices.append(f"{inside} inside {where} not opened: unpack them first to have their images.")
    if others:
        notices.append(f"Ignored in {where}: {left_out(others)}.")
    layout = replace(layout, notices=tuple(notices))
    at = np.array([places[name] for name in layout.names], np.int64)
    del places

    def images(start: int = 0, stop: int | None = None, /) -> Iterator[Image]:
        remaining = {name: (label, of_split) for name, label, of_split in layout.rows(start, stop)}
        for member in _members(path, int(at[start])) if remaining else ():
            if member.name in remaining:
                label, of_split = remaining.pop(member.name)
                opener, held = _opener(member)
                yield Image(printable(member.name), label, opener, of_split, held)
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
    """In bytes, as the archive claims."""
    read: Callable[[int], bytes]
    """Its content, if that is no longer than so many bytes."""
    place: int
    """Where reading comes to it: the offset of its header in a .tar, its number in the directory of a .zip."""


def _members(path: Path, place: int = 0) -> Iterator[Member]:
    """The members from `place` on, in the archive's order: a .tar.xz can only be read from front to back.

    Raises:
        Bomb: there is too much of them.
    """
    size = path.stat().st_size
    unpacked, limit = 0, max(MAX_EXPANSION * size, 2**30)
    for total, member in enumerate(_tar_members(path, place) if _is_tar(path) else _zip_members(path, place), 1):
        unpacked += member.size
        if unpacked > limit:
            raise Bomb(f"it unpacks to more than {MAX_EXPANSION} times its size")
        if total > max(MAX_SMALL_MEMBERS, size // MIN_MEMBER_BYTES):
            raise Bomb(f"it has more than {total - 1:,} members in {size:,} bytes")
        if len(member.name) > MAX_NAME:
            raise Bomb(f"a name in it has {len(member.name):,} characters")
        yield member


def _is_tar(path: Path) -> bool:
    # Checked first: a .tar whose last file is a .zip looks like a .zip too.
    try:
        with open_tar(path):
            return True
    except tarfile.ReadError:
        if zipfile.is_zipfile(path):
            return False
        raise tarfile.ReadError("it looks like neither") from None


def _zip_members(path: Path, place: int) -> Iterator[Member]:
    with open_zip(path) as archive:
        for number, info in enumerate(archive.infolist()[place:], place):
            if not info.is_dir():
                yield Member(info.filename, info.file_size, partial(read_entry, archive, info), number)


def _tar_members(path: Path, place: int) -> Iterator[Member]:
    with open_tar(path) as archive:
        if place:
            archive.firstmember = None  # It was read when the archive was opened.  # ty: ignore
            archive.offset = place
        while (info := archive.next()) is not None:
            if info.isfile():  # No links, devices or folders.
                read = partial(_read_tar, archive, info)
                yield Member(info.name.removeprefix("./"), info.size + TAR_BLOCK, read, info.offset)
            archive.members = []  # Otherwise it keeps every header in memory.  # ty: ignore


def _read_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, most: int) -> bytes:
    if info.size > most:
        raise ValueError(f"it claims {info.size:,} bytes")
    file = archive.extractfile(info)
    assert file is not None, "only regular files are read"
    with file:
        return file.read(most)


def _opener(member: Member) -> tuple[Callable[[], PIL.Image.Image], int]:
    """What opens the image, and how many bytes it holds."""
    # Bytes are read now, in the archive's order; they may be decoded in another thread.
    try:
        content = member.read(scaled(MAX_IMAGE_BYTES))
    except Exception as error:  # Encrypted, damaged, an unknown compression: the other images may be fine.
        return partial(_fail, in_words(error)), 0
    return partial(open_image_file, content), len(content)


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
