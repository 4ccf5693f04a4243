"""Files of .gz, .bz2 and .xz, unpacked from front to back in bounded memory and time."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from typing import Protocol

MAX_DICTIONARY_BYTES = 192 * 2**20
"""An .xz may ask its decoder for gigabytes; `xz -9` asks for 65 MiB."""

MAX_STREAMS, BYTES_A_STREAM = 10_000, 1000
"""A compressed file may be many one after another, and each takes time: so many are read, and one more for so many
bytes that came out. Programs that write them so put tens of kilobytes into each."""

BLOCK_BYTES = 2**18


class Refused(Exception):
    """Reading would take too much memory or time. No TarError, which tarfile takes for the end of the archive."""


class Decoder(Protocol):
    """What Python's decoders of .bz2 and .xz have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipDecoder:
    """The same for .gz, checksum and all."""

    def __init__(self) -> None:
        self.stream = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self.stream.eof

    @property
    def needs_input(self) -> bool:
        return not self.stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self.stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self.stream.decompress(self.stream.unconsumed_tail + data, max_length)


COMPRESSIONS: dict[bytes, Callable[[], Decoder]] = {
    b"\x1f\x8b": _GzipDecoder,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES),
}
"""How compressed files begin. tarfile would try them all, on a file that is none of them for hours."""


def unpacked(file: BufferedIOBase) -> BufferedIOBase:
    """The file's content, unpacked while it is read if the file begins like a compressed one.

    Reading raises Refused, lzma.LZMAError, zlib.error, OSError or EOFError where it cannot go on.
    """
    start = file.read(6)
    file.seek(0)
    decoder = next((decoder for mark, decoder in COMPRESSIONS.items() if start.startswith(mark)), None)
    # With a buffer, since a decoder copies what it has not used yet, however little it is asked for.
    return file if decoder is None else io.BufferedReader(_Unpacked(file, decoder), BLOCK_BYTES)


class _Unpacked(io.RawIOBase):
    """A compressed file unpacked while it is read, with limits that Python's own files of this kind lack: to the memory
    of the decoder, and to the number of streams.
    """

    def __init__(self, file: BufferedIOBase, decoder: Callable[[], Decoder]):
        self.file, self.new_decoder = file, decoder
        self._rewind()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("its end is not known before it is unpacked")
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
            packed = self.packed or (self.file.read(BLOCK_BYTES) if self.decoder.needs_input else b"")
            starved, self.packed = not packed and self.decoder.needs_input, b""
            content = self.decoder.decompress(packed, len(buffer))
            if content:
                buffer[: len(content)] = content
                self.position += len(content)
                return len(content)
            if starved and not self.decoder.eof:
                raise EOFError("it ends too early")

    def _rewind(self) -> None:
        self.file.seek(0)
        self.packed, self.position, self.streams = b"", 0, 1
        self.decoder = self.new_decoder()

    def _next_stream(self) -> bool:
        """Whether another stream follows, after padding."""
        self.packed = self.decoder.unused_data.lstrip(b"\0")
        while not self.packed:
            block = self.file.read(BLOCK_BYTES)
            if not block:
                return False
            self.packed = block.lstrip(b"\0")
        self.streams += 1
        if self.streams > MAX_STREAMS + self.position // BYTES_A_STREAM:
            raise Refused(f"it is {self.streams:,} compressed files one after another, with next to nothing in them")
        self.decoder = self.new_decoder()
        return True
