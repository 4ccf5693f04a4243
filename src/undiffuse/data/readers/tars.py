"""Tar files, plain or compressed, read from front to back in bounded memory."""

import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from undiffuse.data.readers.compressed import Refused, unpacked

MAX_HEADER_BYTES = 2**20
"""The limit for long names and extended headers, which are read into memory whole."""

HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


@contextmanager
def open_tar(path: Path) -> Generator[tarfile.TarFile, None, None]:
    """The .tar, whatever compresses it.

    Raises:
        Refused: it would take too much memory or time; the reason.
        tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError: it is none, or is damaged.
    """
    with open(path, "rb") as file, tarfile.open(fileobj=unpacked(file), mode="r:", tarinfo=Header) as tar:
        yield tar


class Header(tarfile.TarInfo):
    """Refuses a damaged header, which tarfile takes for the end of the archive, and one that it would read for long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):
                raise  # Really the end.
            raise tarfile.ReadError(str(error)) from error
        if header.type in HEADER_TYPES and header.size > MAX_HEADER_BYTES:
            raise Refused(f"a header claims {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse()
        return header

    def _proc_gnusparse_10(self, *arguments: object) -> None:
        # The list of holes stands in front of the content, may be of any length, and is kept in memory.
        raise _sparse()


def _sparse() -> Refused:
    return Refused("it holds a sparse file: make it again without tar's --sparse")
