"""A .zip or .tar of images, read in place: nothing is extracted to disk, and names in it are never used as paths."""

import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from PIL import Image

from undiffuse.data.paths import FORMATS, is_image, printable, read_names
from undiffuse.data.readers.folder import safe_name
from undiffuse.data.source import Source, SourceImage
from undiffuse.utils.names import Split

MAX_IMAGE_BYTES = 512 * 2**20
"""A packed image larger than this is refused; no photo comes near it."""

MAX_EXPANSION = 200
"""Images hardly compress. An archive that unpacks to over this many times its size, and over 1 GiB, is a bomb."""

MAX_HEADER_BYTES = 2**20
"""A .tar's long names and extended headers, which are read into memory whole, may not be larger."""
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
    """The images in the archive `path`; its folders are class names.

    Raises:
        ValueError: it is no archive, is a decompression bomb, holds no images, or has no such split.
    """
    path = path.absolute()
    where = printable(str(path))
    try:
        names = [name for name, _, _ in _members(path)]
    except DAMAGED as error:
        raise ValueError(
            f"{where} is no .zip or .tar that can be read ({error}): give a folder or an archive."
        ) from error
    names = list(dict.fromkeys(names))
    if not names:
        raise ValueError(f"{where} holds no images: give an archive with JPEG or PNG files.")
    named = read_names(names, split, where)
    about = {names[i]: of for i, of in zip(named.chosen, zip(named.labels, named.splits, strict=True), strict=True)}

    def images() -> Iterator[SourceImage]:
        waiting = dict(about)
        for name, size, read in _members(path):
            if name in waiting:
                label, of_split = waiting.pop(name)
                yield SourceImage(printable(name), label, _opener(size, read), of_split)

    return Source(
        name=safe_name(path.name.removesuffix(path.suffix).removesuffix(".tar")),
        split=named.split,
        class_names=named.class_names,
        total_images=len(about),
        images=images,
        content=partial(_content, path, named.split),
        where=where,
        said=named.said,
    )


Member = tuple[str, int, Callable[[], IO[bytes] | None]]


def _members(path: Path) -> Iterator[Member]:
    """Name, size and opener of each image, in the archive's order: a .tar.xz can only be read from front to back."""
    unpacked = 0
    bomb = max(MAX_EXPANSION * path.stat().st_size, 2**30)
    for name, size, read in _tar_members(path) if _is_tar(path) else _zip_members(path):
        unpacked += size
        if unpacked > bomb:
            raise ValueError(f"{path} unpacks to more than {MAX_EXPANSION} times its size: it is a decompression bomb.")
        if is_image(name):
            yield name, size, read


def _is_tar(path: Path) -> bool:
    # Asked first: a .tar whose last file is a .zip looks like a .zip too.
    try:
        with tarfile.open(path, "r:*", tarinfo=_Header):
            return True
    except tarfile.ReadError:
        if zipfile.is_zipfile(path):
            return False
        raise tarfile.ReadError("it looks like neither") from None


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, info.file_size, partial(archive.open, info)


class _Header(tarfile.TarInfo):
    """Stops at a damaged header, which tarfile takes for the archive's end, and at a huge one, which it would read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):
                raise  # The end indeed.
            raise tarfile.ReadError(str(error)) from error
        if header.type in HEADER_TYPES and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {header.size:,} bytes")
        return header


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:*", tarinfo=_Header) as archive:
        for info in archive:
            if info.isfile():  # No links, devices or folders.
                yield info.name.removeprefix("./"), info.size, partial(archive.extractfile, info)
            archive.members = []  # Or it keeps every header it has passed.  # ty: ignore


def _opener(size: int, read: Callable[[], IO[bytes] | None]) -> Callable[[], Image.Image]:
    # The bytes are read now, in the archive's order; the decoding may happen in another thread.
    try:
        if size > MAX_IMAGE_BYTES:
            raise ValueError(f"it claims {size:,} bytes")
        file = read()
        assert file is not None, "only regular files are asked for"
        with file:
            content = file.read(MAX_IMAGE_BYTES + 1)
        if len(content) > MAX_IMAGE_BYTES:
            raise ValueError(f"it unpacks to over {MAX_IMAGE_BYTES:,} bytes")
    except Exception as error:  # Encrypted, damaged, an unknown compression: this image is bad, the others may be good.
        return partial(_fail, str(error))
    return partial(Image.open, io.BytesIO(content), formats=FORMATS)


def _fail(reason: str) -> Image.Image:
    raise ValueError(reason)


def _content(path: Path, split: str) -> str:
    with open(path, "rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}-{split}"
