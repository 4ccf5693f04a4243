"""Tar files, plain or compressed, read from front to back in bounded memory."""

import io
import lzma
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

MAX_HEADER_BYTES = 2**20
"""The limit for long names and extended headers, which are read into memory whole."""

MAX_DICTIONARY_BYTES = 192 * 2**20
"""An .xz may ask its decoder for gigabytes; `xz -9` asks for 65 MiB."""

BLOCK_BYTES = 2**18

COMPRESSIONS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}
"""How compressed files begin. tarfile would try them all, on a file that is none of them for hours."""

HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class Refused(Exception):
    """Reading would take too much memory or time. No TarError, which tarfile takes for the end of the archive."""


@contextmanager
def open_tar(path: Path) -> Generator[tarfile.TarFile, None, None]:
    """The .tar, whatever compresses it.

    Raises:
        Refused: it would take too much memory or time; the reason.
        tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError: it is none, or is damaged.
    """
    with open(path, "rb") as file:
        start = file.read(6)
        kind = next((kind for mark, kind in COMPRESSIONS.items() if start.startswith(mark)), "")
        file.seek(0)
        content, mode = (_Xz(file), "r:") if kind == "xz" else (file, f"r:{kind}")
        with tarfile.open(fileobj=content, mode=mode, tarinfo=Header) as tar:  # ty: ignore[no-matching-overload]
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


class _Xz(io.RawIOBase):
    """An .xz file unpacked while it is read, with a limit to the decoder's memory, which Python's LZMAFile lacks."""

    def __init__(self, file: BufferedIOBase):
        self.file = file
        self._rewind()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset + (self.position if whence == io.SEEK_CUR else 0)
        if target < self.position:
            self._rewind()
        while self.position < target and self.read(min(BLOCK_BYTES, target - self.position)):
            pass
        return self.position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # ty: ignore[incompatible-method-override]
        while True:
            if self.decoder.eof and not self._next_stream():
                return 0
            packed = self.packed
            if not packed and self.decoder.needs_input and not (packed := self.file.read(BLOCK_BYTES)):
                raise EOFError("it ends too early")
            self.packed = b""
            content = self.decoder.decompress(packed, len(buffer))
            if content:
                buffer[: len(content)] = content
                self.position += len(content)
                return len(content)

    def _rewind(self) -> None:
        self.file.seek(0)
        self.packed, self.position = b"", 0
        self.decoder = lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES)

    def _next_stream(self) -> bool:
        """Whether another stream follows, after padding."""
        self.packed = self.decoder.unused_data.lstrip(b"\0")
        while not self.packed:
            block = self.file.read(BLOCK_BYTES)
            if not block:
                return False
            self.packed = block.lstrip(b"\0")
        self.decoder = lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES)
        return True
