"""What image files say of themselves, checked before a decoder believes it: each check reads headers, never pixels.

Decoders keep and convert what stands around the pixels (names, profiles, tables of offsets), some of them one byte at a
time; a few kilobytes can thus cost gigabytes or hours. No photo comes near these limits.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import NamedTuple

MAX_METADATA_BYTES = 32 * 2**20
"""Of everything but pixels."""

MAX_CHUNKS = 100_000
"""Pieces of a file: chunks of a PNG, segments of a JPEG, strips and tiles of a TIFF."""

MAX_COMMENT_BYTES = 2**20
"""Of all that stands before a GIF's first image, which is read 255 bytes at a time."""

MAX_SCANS = 200
"""Of a JPEG: a decoder passes over all pixels once for each. Encoders write about ten."""

MAX_TEXT_HEADER = 2**16
"""The size of a PPM stands within so many bytes, which are read one by one."""

UNPACKED = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each of TIFF's types."""

BYTES_TYPES = (1, 2, 6, 7)

IFDS = (0x8769, 0x8825, 0xA005)
"""EXIF's tags that lead to more tags."""

TILE_WIDTH, TILE_HEIGHT = 0x142, 0x143


class Header(NamedTuple):
    """What a decoder needs, as far as it can be told without one; zero where it cannot."""

    format: str
    """Pillow's name."""
    pixels: int = 0
    """Of the largest buffer that is known before the file is opened."""
    whole: bool = False
    """Of a JPEG: it comes in several passes, so that all coefficients are kept while it is decoded."""


def read_header(file: BufferedIOBase) -> Header | None:
    """The format of an image file, whose header has been checked; None for a file that is none of those read.

    Raises:
        ValueError: the header would cost too much to read; the reason.
        EOFError, struct.error: it is cut off.
    """
    start = _at(file, 0, 16, whole=False)
    for matches, check in FORMATS:
        if matches(start):
            return check(file)
    return None


def check_tags(read: Callable[[int, int], bytes], limit: int = MAX_METADATA_BYTES) -> dict[int, int]:
    """Checks the tags of a TIFF or of EXIF: many of them may point to the same bytes, and are all kept.

    `read` gives so many bytes at an offset, or what there is of them. Returns the tags that are one number.

    Raises:
        ValueError: there are too many.
    """
    start = read(0, 16)
    if start[:2] not in (b"II", b"MM"):
        return {}
    order = "<" if start[:2] == b"II" else ">"
    large = start[2:4] in (b"\x2b\x00", b"\x00\x2b")
    count_form, entry_form, offset_form = ("Q", "HHQQ", "Q") if large else ("H", "HHLL", "L")
    at = 8 if large else 4
    (first,) = struct.unpack_from(order + offset_form, start, at)
    waiting, seen, total, found = [first], set(), 0, {}
    while waiting and len(seen) < 8:
        offset = waiting.pop()
        if offset in seen:
            continue
        seen.add(offset)
        width = struct.calcsize(order + count_form)
        head = read(offset, width)
        if len(head) < width:
            continue  # Cut off: the decoder will say so.
        (entries,) = struct.unpack(order + count_form, head)
        if entries > MAX_CHUNKS:
            raise ValueError(f"it claims {entries:,} tags")
        size = struct.calcsize(order + entry_form)
        table = read(offset + width, size * entries)
        for tag, kind, count, value in struct.iter_unpack(order + entry_form, table[: len(table) // size * size]):
            total += count * UNPACKED.get(kind, 1)
            if kind not in BYTES_TYPES and count > MAX_CHUNKS:
                raise ValueError(f"it claims {count:,} values in one of its tags")
            if total > limit:
                raise ValueError(f"its tags claim more than {limit // 2**20} MiB")
            if tag in IFDS:
                waiting.append(value)
            if count == 1:
                # A short number stands in the first two bytes of its field: in big-endian files its upper half.
                shift = 8 * (struct.calcsize(order + offset_form) - 2) if kind == 3 and order == ">" else 0
                found[tag] = value >> shift if kind != 3 else value >> shift & 0xFFFF
    return found


def check_exif(exif: bytes) -> None:
    """Checks the EXIF block of any format: see `check_tags`.

    Raises:
        ValueError: it has too many tags.
    """
    tags = exif.removeprefix(b"Exif\0\0")
    if len(tags) >= 16:
        check_tags(lambda offset, size: tags[offset : offset + size])


def _png(file: BufferedIOBase) -> Header:
    other, chunks, at, end = 0, 0, 8, _size(file)
    width, height = struct.unpack(">LL", _at(file, 16, 8))
    while at < end:
        length, kind = struct.unpack(">L4s", _at(file, at, 8))
        chunks += 1
        other += 0 if kind == b"IDAT" else min(length, end - at)
        if other > MAX_METADATA_BYTES or chunks > MAX_CHUNKS:
            raise ValueError(_too_much)
        if kind == b"eXIf":
            check_exif(_at(file, at + 8, min(length, end - at)))
        if kind == b"IEND" or at + length > end:
            break
        at += 12 + length
    return Header("PNG", width * height)


def _jpeg(file: BufferedIOBase) -> Header:
    """Up to the first pixels; the passes are counted only where there are several."""
    at, segments, other, components, progressive = 2, 0, 0, 0, False
    end = _size(file)
    while at < end:
        piece = _at(file, at, 4)
        if piece[0] != 0xFF or piece[1] in (0x00, 0xFF):  # Junk, which is skipped byte by byte.
            at, other, segments = at + 1, other + 1, segments + 1
        elif piece[1] == 0xDA:  # The pixels.
            whole = progressive or _at(file, at + 4, 1)[0] < components
            if whole and _count(file, b"\xff\xda") > MAX_SCANS:
                raise ValueError(f"its pixels come in more than {MAX_SCANS} passes")
            break
        elif piece[1] in (0x01, 0xD8) or 0xD0 <= piece[1] <= 0xD7:
            at, segments = at + 2, segments + 1
        else:
            length = int.from_bytes(piece[2:], "big")
            if 0xC0 <= piece[1] <= 0xCF and piece[1] not in (0xC4, 0xC8, 0xCC):
                progressive = piece[1] in (0xC2, 0xC6, 0xCA, 0xCE)
                components = _at(file, at + 9, 1)[0]
            at, other, segments = at + 2 + length, other + length, segments + 1
        if other > MAX_METADATA_BYTES or segments > MAX_CHUNKS:
            raise ValueError(_too_much)
    else:
        whole = False
    return Header("JPEG", whole=whole)


def _gif(file: BufferedIOBase) -> Header:
    flags = _at(file, 10, 1)[0]
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while _at(file, at, 1) == b"!":
        at += 2
        while length := _at(file, at, 1)[0]:
            at += 1 + length
            if at > MAX_COMMENT_BYTES:
                raise ValueError(f"it holds more than {MAX_COMMENT_BYTES // 2**20} MiB before its first image")
        at += 1
    width, height = struct.unpack("<HH", _at(file, 6, 4))
    return Header("GIF", width * height)


def _tiff(file: BufferedIOBase) -> Header:
    found = check_tags(lambda offset, size: _at(file, offset, size, whole=False))
    return Header("TIFF", found.get(TILE_WIDTH, 0) * found.get(TILE_HEIGHT, 0))


def _webp(file: BufferedIOBase) -> Header:
    start = _at(file, 0, 30)
    if start[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(start[at : at + 3], "little") for at in (24, 27))
    elif start[12:16] == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", start[26:30]))
    other, at, end = 0, 12, _size(file)
    for _ in range(MAX_CHUNKS):
        if at + 8 > end:
            return Header("WEBP", width * height)
        kind, length = struct.unpack("<4sL", _at(file, at, 8))
        other += 0 if kind in (b"VP8 ", b"VP8L", b"ANMF", b"ALPH") else min(length, end - at)
        if other > MAX_METADATA_BYTES:
            break
        if kind == b"EXIF":
            check_exif(_at(file, at + 8, length, whole=False))
        at += 8 + length + length % 2
    raise ValueError(_too_much)


def _ppm(file: BufferedIOBase) -> Header:
    start = _at(file, 0, MAX_TEXT_HEADER, whole=False)
    words = re.sub(rb"#[^\r\n]*([\r\n]|$)", b" ", start).split(None, 4)
    if len(words) < 4 and _size(file) > MAX_TEXT_HEADER:
        raise ValueError(f"it does not state its size within {MAX_TEXT_HEADER // 2**10} KiB")
    return Header("PPM")


_too_much = f"it holds more than {MAX_METADATA_BYTES // 2**20} MiB, or {MAX_CHUNKS:,} pieces, besides its pixels"

FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[BufferedIOBase], Header]], ...] = (
    (lambda start: start.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda start: start[:4] == b"RIFF" and start[8:12] == b"WEBP", _webp),
    (lambda start: start.startswith(b"BM"), lambda file: Header("BMP")),
    (lambda start: start.startswith((b"GIF87a", b"GIF89a")), _gif),
    (lambda start: start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    (lambda start: start[:1] == b"P" and start[1:2] in b"123456fF" and len(start) > 2, _ppm),
)
"""How each format begins, and its check."""


def _size(file: BufferedIOBase) -> int:
    return file.seek(0, os.SEEK_END)


def _at(file: BufferedIOBase, offset: int, size: int, whole: bool = True) -> bytes:
    """So many bytes at an offset, or with `whole` off what there is of them."""
    file.seek(min(offset, 2**62))
    content = file.read(min(size, MAX_METADATA_BYTES + 1))
    if whole and len(content) < size:
        raise EOFError("it is cut off")
    return content


def _blocks(file: BufferedIOBase, size: int = 2**20) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(size):
        yield block


def _count(file: BufferedIOBase, marker: bytes) -> int:
    """How often two bytes stand in the file."""
    total, last = 0, b""
    for block in _blocks(file):
        total += (last + block).count(marker)
        last = block[-1:]
    return total
