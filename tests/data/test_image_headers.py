"""What is read of a TIFF's or of EXIF's tags before anything is decoded."""

import struct
from collections.abc import Sequence

import pytest

from undiffuse.data.image_headers import MAX_CHUNKS, MAX_METADATA_BYTES, check_exif, check_tags

BYTE, SHORT, LONG, DOUBLE = 1, 3, 4, 12
EXIF_IFD, GPS_IFD, WIDTH = 0x8769, 0x8825, 256

Tag = tuple[int, int, int, int]
"""Its number, type, count and value."""


def tiff(directories: Sequence[Sequence[Tag]], order: str = "<") -> bytes:
    """Directories of tags one after another: the n-th stands at 8 + 100 n."""
    content = struct.pack(f"{order}2sHL", b"II" if order == "<" else b"MM", 42, 8)
    for tags in directories:
        entries = b"".join(
            struct.pack(f"{order}HHL", *tag[:3])
            + (struct.pack(f"{order}HH", tag[3], 0) if tag[1] == SHORT else struct.pack(f"{order}L", tag[3]))
            for tag in tags
        )
        content += (struct.pack(f"{order}H", len(tags)) + entries).ljust(100, b"\0")
    return content


def tags_of(content: bytes, limit: int = MAX_METADATA_BYTES) -> dict[int, int]:
    return check_tags(lambda offset, size: content[offset : offset + size], limit)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_one_number_are_read_in_both_byte_orders(order: str) -> None:
    content = tiff([[(WIDTH, SHORT, 1, 700), (257, LONG, 1, 70_000), (258, SHORT, 3, 8)]], order)
    assert tags_of(content) == {WIDTH: 700, 257: 70_000}, "three numbers stand elsewhere"


def test_large_tiffs_have_wider_fields() -> None:
    entry = struct.pack("<HHQQ", WIDTH, LONG, 1, 70_000)
    content = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 1) + entry
    # The first directory stands where the header says, after these 8 bytes.
    assert tags_of(content) == {WIDTH: 70_000}


def test_directories_that_lead_back_are_left_and_the_others_still_checked() -> None:
    """The last of the directories that wait is taken first: here the one that was seen, and then the bad one."""
    good = (WIDTH, SHORT, 1, 1)
    leads = [(GPS_IFD, LONG, 1, 108), (EXIF_IFD, LONG, 1, 8)]
    assert tags_of(tiff([[good, *leads], [good]])) == {WIDTH: 1, GPS_IFD: 108, EXIF_IFD: 8}
    with pytest.raises(ValueError, match="it claims 100,001 values in one of its tags"):
        tags_of(tiff([[good, *leads], [(WIDTH, LONG, MAX_CHUNKS + 1, 0)]]))


def test_what_tags_claim_is_counted_in_bytes_over_all_directories() -> None:
    four = [(WIDTH, DOUBLE, 1000, 0)] * 4  # 32,000 bytes.
    leads = [*four, (EXIF_IFD, LONG, 1, 108)]
    assert EXIF_IFD in tags_of(tiff([leads, four]), limit=64_004)
    with pytest.raises(ValueError, match="its tags claim more than"):
        tags_of(tiff([leads, four]), limit=64_003)
    assert tags_of(tiff([[(WIDTH, BYTE, MAX_CHUNKS + 1, 0)]])) == {}, "bytes are one value, whatever their number"


def test_too_many_tags_are_refused_and_cut_files_left_to_the_decoder() -> None:
    with pytest.raises(ValueError, match="it claims 100,001 tags"):
        tags_of(struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, MAX_CHUNKS + 1))
    assert tags_of(struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, MAX_CHUNKS)) == {}, "cut off"
    assert tags_of(struct.pack("<2sHL", b"II", 42, 8).ljust(9, b"\0")) == {}, "cut off in the number of its tags"
    assert tags_of(b"GIF89a") == {}


def test_exif_begins_with_a_word_of_its_own_or_not() -> None:
    bad = tiff([[(WIDTH, LONG, MAX_CHUNKS + 1, 0)]])
    for exif in (bad, b"Exif\0\0" + bad):
        with pytest.raises(ValueError, match="it claims 100,001 values"):
            check_exif(exif)
    check_exif(b"Exif\0\0")
