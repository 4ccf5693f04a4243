"""What is read of image files before anything is decoded; tests/test_hostile.py measures whole files."""

import io
import struct
from collections.abc import Sequence

import pytest
from helpers.hostile.images import chunk, gif, good_jpeg, good_png, jpeg, progressive, segment
from helpers.making import encoded, noise

from undiffuse.data.image_files import open_image_file
from undiffuse.data.image_headers import (
    MAX_CHUNKS,
    MAX_METADATA_BYTES,
    Header,
    check_exif,
    check_tags,
    read_header,
)

BYTE, SHORT, LONG, DOUBLE = 1, 3, 4, 12
TYPES = {1: "B", 2: "s", 3: "H", 4: "L", 5: "2L", 6: "b", 7: "s", 8: "h", 9: "l", 10: "2l", 11: "f", 12: "d", 13: "L"}
"""TIFF 6.0, section 2, and its technical note 1."""
LARGE_TYPES = {16: "Q", 17: "q", 18: "Q"}
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


@pytest.mark.parametrize(("kind", "form"), (TYPES | LARGE_TYPES).items())
def test_each_type_of_tiff_has_its_size(kind: int, form: str) -> None:
    size = struct.calcsize(f"<{form}")
    content = tiff([[(WIDTH, kind, 1000, 0)]])
    tags_of(content, limit=1000 * size)
    with pytest.raises(ValueError, match="its tags claim more than"):
        tags_of(content, limit=1000 * size - 1)


def test_as_many_values_as_are_allowed_are_read() -> None:
    assert tags_of(tiff([[(WIDTH, LONG, MAX_CHUNKS, 0), (257, LONG, 1, 5)]])) == {257: 5}


def header_of(content: bytes) -> Header | None:
    return read_header(io.BytesIO(content))


@pytest.mark.parametrize("content", [b"", b"P", b"text", b"a text that is longer than sixteen bytes"])
def test_what_is_no_image_has_no_header_however_short(content: bytes) -> None:
    assert header_of(content) is None


def test_the_smallest_image_is_shorter_than_what_tells_formats_apart() -> None:
    pixel = b"P5 1 1 255\n\x07"
    assert len(pixel) < 16
    assert open_image_file(pixel).getpixel((0, 0)) == 7


def test_a_pgm_states_its_size_first_and_is_then_as_long_as_it_likes() -> None:
    assert header_of(b"P5 300 300 255\n" + bytes(90_000)) == Header("PPM")
    assert header_of(b"P5 #" + b"c" * 2**10) == Header("PPM"), "cut off, which the decoder will say"
    with pytest.raises(ValueError, match="does not state its size within 64 KiB"):
        header_of(b"P5 #" + b"c" * 2**16 + b"\n300 300 255\n" + bytes(90_000))


def test_what_stands_behind_a_png_is_not_looked_at() -> None:
    bad = chunk(b"eXIf", tiff([[(WIDTH, LONG, MAX_CHUNKS + 1, 0)]]))
    for behind in (b"more", bad):
        assert header_of(good_png() + behind) == Header("PNG", 16 * 16)
    with pytest.raises(ValueError, match="it claims 100,001 values"):
        header_of(good_png(after=[bad]))


def test_a_gif_may_begin_with_several_extensions() -> None:
    comment = b"!\xfe" + b"\x03abc" + b"\xff" + b"!" * 255 + b"\0"
    content = gif(16, 16, comment * 3)
    assert header_of(content) == Header("GIF", 16 * 16)
    open_image_file(content).load()
    with pytest.raises(ValueError, match="it holds more than 1 MiB before its first image"):
        header_of(gif(16, 16, comment * 4096))


def test_passes_of_a_jpeg_are_found_behind_other_segments() -> None:
    baseline, several = good_jpeg(), progressive()
    assert header_of(baseline) == Header("JPEG", whole=False)
    assert header_of(several) == Header("JPEG", whole=True)
    frame = several[several.index(b"\xff\xc2") :][:19]
    long = segment(0xFE, frame.ljust(0xD000, b"."))  # A comment that holds the start of a progressive image.
    for more in (long, b"\xff\xd0", b"\xff\x01", b"\xff\xff"):
        assert header_of(jpeg(more)) == Header("JPEG", whole=False)
        assert header_of(several[:2] + more + several[2:]) == Header("JPEG", whole=True)


@pytest.mark.parametrize("piece", [b"\xff\xd7", b"\xff\x01", b"\0", segment(0xFE, b"")], ids=repr)
def test_pieces_of_a_jpeg_are_counted_whatever_they_are(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("undiffuse.data.image_headers.MAX_CHUNKS", 1000)
    first = segment(0xFE, b"")
    assert header_of(jpeg(first + piece * 900)) == Header("JPEG")
    with pytest.raises(ValueError, match="more than 32 MiB, or 100,000 pieces"):
        header_of(jpeg(first + piece * 1000))


def test_a_webp_tells_its_size_in_all_its_forms() -> None:
    file = io.BytesIO()
    noise(4, 16, 24).save(file, "WEBP", lossless=True)
    lossy = encoded(noise(4, 16, 24), "WEBP")
    transparent = encoded(noise(4, 16, 24, 4), "WEBP")
    assert [content[12:16] for content in (file.getvalue(), lossy, transparent)] == [b"VP8L", b"VP8 ", b"VP8X"]
    for content in (file.getvalue(), lossy, transparent):
        assert header_of(content) == Header("WEBP", 16 * 24)
