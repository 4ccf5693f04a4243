"""Zip files, read without believing what their directories say: how many files, how large, and where."""

import io
import struct
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from undiffuse.utils.limits import scaled

MAX_DIRECTORY_BYTES = 128 * 2**20

MAX_ENTRIES = 1_000_000
"""zipfile keeps about 600 bytes of each in memory."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How entries may be compressed: for others zipfile unpacks all that it is given at once, which may be gigabytes."""

BLOCK_BYTES = 2**20

END = struct.Struct("<4s4H2LH")
"""The record at the end of a zip file, before its comment."""

END64 = struct.Struct("<4sQ2H2L4Q")

ENTRY = struct.Struct("<4s24x3H12x")
"""Of an entry in the directory: what the lengths of its name and of what follows are."""


@contextmanager
def open_zip(path: Path) -> Generator[zipfile.ZipFile, None, None]:
    """The zip file, once its directory has been counted.

    Raises:
        zipfile.BadZipFile: it is none, is damaged, or has a directory that would not fit in memory; the reason.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            yield archive


def read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """What an entry holds, counted while it is unpacked.

    Raises:
        ValueError: it is longer than `most`, encrypted or damaged; the reason.
    """
    if info.file_size > most:
        raise ValueError(f"it claims {info.file_size:,} bytes")
    if info.flag_bits & 0x41:
        raise ValueError("it is encrypted: unpack the archive with its password")
    if info.compress_type not in METHODS:
        method = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma"}.get(info.compress_type, "an unusual method")
        raise ValueError(f"it is compressed by {method}: make a zip file in the ordinary way (deflate)")
    content = io.BytesIO()
    try:
        with archive.open(info) as entry:
            while block := entry.read(BLOCK_BYTES):
                content.write(block)
                if content.tell() > most:
                    raise ValueError(f"it unpacks to over {most:,} bytes")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, struct.error) as error:
        raise ValueError(_words(error)) from error
    if content.tell() != info.file_size:
        raise ValueError(f"it claims {info.file_size:,} bytes, and holds {content.tell():,}")
    return content.getvalue()


def _words(error: Exception) -> str:
    """What is wrong with an entry, in the words of who made the archive."""
    said = str(error)
    if "CRC" in said:
        return "its checksum (CRC) is wrong: the archive is damaged, or states a wrong length"
    if "differ" in said:
        return "its name in the archive's directory is not that at its place: the archive is damaged"
    return "its place in the archive is damaged"


def _check_directory(file: BufferedIOBase) -> None:
    """Raises BadZipFile if the directory is missing, or too long to be kept in memory."""
    end = file.seek(0, io.SEEK_END)
    tail_at = file.seek(max(0, end - END.size - 2**16 - END64.size - 20))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + END.size > len(tail):
        raise zipfile.BadZipFile("its directory, which stands at the end, is missing")
    size, place = END.unpack_from(tail, at)[5], tail_at + at
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7" and at >= 20 + END64.size:
        record = tail[at - 20 - END64.size : at - 20]
        if record.startswith(b"PK\6\6"):
            size, place = END64.unpack(record)[8], place - 20 - END64.size
    if size > place:
        raise zipfile.BadZipFile("its directory claims more than the file holds")
    if size > scaled(MAX_DIRECTORY_BYTES):
        raise zipfile.BadZipFile(f"its directory has {size // 2**20:,} MiB: make a .tar, which is read file by file")
    file.seek(place - size)
    if _entries(file.read(size)) > scaled(MAX_ENTRIES):
        raise zipfile.BadZipFile(f"it has more than {scaled(MAX_ENTRIES):,} entries: make a .tar")


def _entries(directory: bytes) -> int:
    """How many entries there are, up to the first that is damaged."""
    at = total = 0
    while at + ENTRY.size <= len(directory):
        mark, *lengths = ENTRY.unpack_from(directory, at)
        if mark != b"PK\1\2":
            break
        at += ENTRY.size + sum(lengths)
        total += 1
    return total
