"""Hostile image files."""

import io
import os
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from helpers.hostile.case import Case, photos
from helpers.making import encoded, noise

PNG = b"\x89PNG\r\n\x1a\n"
TOO_LARGE = (
    r"claims [\d,]+ megapixels, more than the [\d,]+ megapixels that are decoded: "
    r"(UNDIFFUSE_MEMORY_GB=[\d.]+ raises|make it smaller)"
)
TOO_MUCH = "it holds more than 32 MiB, or 100,000 pieces, besides its pixels"
LAUGHS = "its tags claim more than 32 MiB"
CUT = "cut off|truncated"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes, depth: int = 8, color: int = 2, data: bytes | None = None) -> bytes:
    """A PNG that claims this size; by default its pixels are those of one small row."""
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(64)) if data is None else data)
    return PNG + header + b"".join(more) + pixels + chunk(b"IEND", b"")


def good_png(*before: bytes, after: Sequence[bytes] = ()) -> bytes:
    """A small whole PNG with other chunks before and after its pixels."""
    content = encoded(noise(1))
    at = content.index(b"IDAT") - 4
    end = content.index(b"IEND") - 4
    return content[:at] + b"".join(before) + content[at:end] + b"".join(after) + content[end:]


@cache
def zeros(total: int) -> bytes:
    """The zlib stream of so many zeros, made at once from the same piece: 2**20 of them are a kilobyte."""
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (total // 2**20 - 1) + packer.flush()


@cache
def laughing_exif(tags: int = 5000, claims: int = 40_000) -> bytes:
    """EXIF of many tags, all of which point to the same bytes."""
    entries = b"".join(struct.pack("<HHLL", 0x9000 + i % 4096, 7, claims, 8) for i in range(tags))
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, tags) + entries + bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


@cache
def good_jpeg() -> bytes:
    return encoded(noise(2, 64, 64), "JPEG")


def jpeg(*segments: bytes) -> bytes:
    """A small whole JPEG with other segments at its start."""
    return good_jpeg()[:2] + b"".join(segments) + good_jpeg()[2:]


def resized_jpeg(width: int, height: int, content: bytes | None = None) -> bytes:
    """A JPEG that claims another size."""
    changed = bytearray(content or good_jpeg())
    at = next(at for mark in (b"\xff\xc0", b"\xff\xc2") if (at := changed.find(mark)) > 0)
    changed[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


def progressive(scans: int = 0) -> bytes:
    file = io.BytesIO()
    noise(2, 64, 64).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[last:] if scans else content


def wide_jpeg(path: Path) -> None:
    Image.new("RGB", (11_000, 10_000), (200, 30, 90)).save(path, "JPEG", quality=30)


def gif(width: int, height: int, extensions: bytes = b"") -> bytes:
    content = encoded(noise(3).convert("P"), "GIF")
    after = 13 + 3 * 2 ** ((content[10] & 7) + 1) * (content[10] >> 7)
    return content[:6] + struct.pack("<HH", width, height) + content[10:after] + extensions + content[after:]


def animation(format: str, frames: int):
    """A function that writes an animation: not now, since thousands of frames take seconds."""

    def write(path: Path) -> None:
        images = [Image.new("L", (8, 8), i % 251) for i in range(frames)]
        images[0].save(path, format, save_all=True, append_images=images[1:])

    return write


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<L", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<L", 4 + len(body)) + b"WEBP" + body


def extended(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


@cache
def still() -> bytes:
    """The pixels of a small WebP, as one chunk's content."""
    file = io.BytesIO()
    noise(4).save(file, "WEBP", lossless=True)
    content = file.getvalue()
    return content[20 : 20 + int.from_bytes(content[16:20], "little")]


def tiff(tags: Sequence[tuple[int, int, int, int]], data: bytes = bytes(64), following: int = 0) -> bytes:
    """A TIFF of these tags (tag, type, count, value), whose data follow them."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + struct.pack("<L", following) + data


def plain_tiff(width: int, height: int, *more: tuple[int, int, int, int], following: int = 0) -> bytes:
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    tags |= {273: (4, 1, 8), 278: (4, 1, height), 279: (4, 1, min(width * height, 2**31))}
    tags |= {tag: (kind, count, value) for tag, kind, count, value in more}
    return tiff([(tag, *rest) for tag, rest in tags.items()], following=following)


def many_pages(path: Path) -> None:
    images = [Image.new("L", (8, 8), i % 251) for i in range(200)]
    images[0].save(path, "TIFF", save_all=True, append_images=images[1:])


def bmp(width: int, height: int, compression: int = 0, bits: int = 24, colors: int = 0, offset: int = 54) -> bytes:
    header = struct.pack("<LllHHLLllLL", 40, width, height, 1, bits, compression, 0, 0, 0, colors, 0)
    return b"BM" + struct.pack("<LHHL", 54 + 64, 0, 0, offset) + header + bytes(64)


def holed(size: int):
    """A function that writes a file of this length that takes no space on the disk."""

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            file.write(PNG)
            file.truncate(size)

    return write


def large(path: Path) -> None:
    """As large as is allowed, with alpha, on its side."""
    image = Image.new("RGBA", (10_000, 7_900), (10, 200, 30, 100))
    image.save(path, "PNG", compress_level=1, exif=rotated())


def large_webp(path: Path) -> None:
    Image.new("RGBA", (6_600, 6_000), (10, 200, 30, 100)).save(path, "WEBP", lossless=True, method=0, quality=0)


def large_progressive(path: Path) -> None:
    image = Image.new("CMYK", (10_000, 7_900), (10, 200, 30, 100))
    image.save(path, "JPEG", quality=30, progressive=True, subsampling=0, exif=rotated())


def large_deep(path: Path) -> None:
    Image.new("I;16", (10_000, 7_900), 4000).save(path, "TIFF", compression="tiff_deflate")


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def hexed(exif: bytes) -> bytes:
    """As ImageMagick keeps EXIF in a PNG's text."""
    lines = exif.hex()
    return b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(exif):>8}\n{lines}\n".encode())


def rewritten(content: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert old in content
        content = content.replace(old, new, 1)
    return content


COMMENT = b"!\xfe" + b"\xff" + b"c" * 255

CASES: list[Case] = [
    photos("PNG of 50,000 x 50,000 in 100 bytes", png(50_000, 50_000), TOO_LARGE, "a.png"),
    photos("PNG of 2,147,483,647 x 2,147,483,647", png(2**31 - 1, 2**31 - 1), TOO_LARGE, "a.png"),
    photos("PNG that unpacks to 280 MB of zeros", png(9_400, 9_400, data=zeros(2**28)), TOO_LARGE, "a.png"),
    photos("PNG of 2,000,000 x 1", png(2_000_000, 1), "a side may have 1,048,576", "a.png"),
    photos("PNG of 8,000 x 8,000 whose pixels are missing", png(8_000, 8_000), CUT, "a.png"),
    photos(
        "PNG of 16 bits and four channels, 8,000 x 8,000, cut off", png(8_000, 8_000, depth=16, color=6), CUT, "a.png"
    ),
    photos("PNG of size zero", png(0, 0), "header is damaged", "a.png"),
    photos("PNG that claims a chunk of 4 GiB", PNG + struct.pack(">L4s", 2**32 - 1, b"IHDR") + bytes(20), ".", "a.png"),
    photos("PNG with a text of 1 GB in zTXt", good_png(chunk(b"zTXt", b"k\0\0" + zeros(2**30))), "1 MiB", "a.png"),
    photos(
        "PNG with a text of 1 GB in iTXt",
        good_png(chunk(b"iTXt", b"k\0\1\0\0\0" + zeros(2**30))),
        "1 MiB|read",
        "a.png",
    ),
    photos(
        "PNG with a color profile of 1 GB in iCCP",
        good_png(chunk(b"iCCP", b"k\0\0" + zeros(2**30))),
        "1 MiB",
        "a.png",
    ),
    photos("PNG with 40 MiB of texts", good_png(*[chunk(b"tEXt", b"k\0" + b"t" * 2**20)] * 40), TOO_MUCH, "a.png"),
    photos(
        "PNG with texts of 100 MiB, 1 MiB each, packed",
        good_png(*[chunk(b"zTXt", b"k\0\0" + zeros(2**20))] * 100),
        "1 MiB|read",
        "a.png",
    ),
    photos("PNG in 200,000 empty pieces", png(9, 9, *[chunk(b"IDAT", b"")] * 200_000), TOO_MUCH, "a.png"),
    photos(
        "PNG whose EXIF points 5,000 times to the same", good_png(chunk(b"eXIf", laughing_exif()[6:])), LAUGHS, "a.png"
    ),
    photos(
        "PNG whose EXIF does so behind its pixels",
        good_png(after=[chunk(b"eXIf", laughing_exif()[6:])]),
        LAUGHS,
        "a.png",
    ),
    photos("PNG whose EXIF does so in a text", good_png(chunk(b"zTXt", hexed(laughing_exif()))), LAUGHS, "a.png"),
    photos("PNG with a wrong checksum", rewritten(good_png(), (b"IHDR", b"IHDr")), "damaged|broken|not", "a.png"),
    photos("PNG cut in half", encoded(noise(1, 64, 64))[:5000], CUT, "a.png"),
    photos("PNG animation of 3,000 frames", animation("PNG", 3000), r"read: .*a\.png PNG 8x8", "a.png"),
    photos(
        "PNG as large as is allowed, transparent, on its side", large, r"read: .*7900x10000|10000x7900", "a.png", True
    ),
    photos("JPEG of 65,500 x 65,500 in 2 KB", resized_jpeg(65_500, 65_500), TOO_LARGE, "a.jpg"),
    photos("JPEG of 30,000 x 30,000 in 2 KB", resized_jpeg(30_000, 30_000), "JPEG 30000x30000", "a.jpg"),
    photos("JPEG of 110 megapixels, whole", wide_jpeg, r"read: .*a\.jpg JPEG 11000x10000", "a.jpg", True),
    photos(
        "progressive JPEG of 20,000 x 20,000",
        resized_jpeg(20_000, 20_000, progressive()),
        "claims 400 megapixels; a progressive JPEG",
        "a.jpg",
    ),
    photos(
        "progressive JPEG of 8,900 x 8,900 in 4 KB",
        resized_jpeg(8_900, 8_900, progressive()),
        "JPEG 8900x8900",
        "a.jpg",
    ),
    photos("progressive JPEG in 3,000 passes", progressive(3_000), "more than 200 passes", "a.jpg"),
    photos("progressive CMYK JPEG as large as is allowed, on its side", large_progressive, "read", "a.jpg", True),
    photos("JPEG with 200,000 segments", jpeg(*[segment(0xEB, b"")] * 200_000), TOO_MUCH, "a.jpg"),
    photos(
        "JPEG with 40 MiB of segments", jpeg(*[segment(0xE1, b"Exif\0\0" + bytes(65_000))] * 650), TOO_MUCH, "a.jpg"
    ),
    photos("JPEG with 2 MiB of padding", jpeg(b"\xff" * 2**21), TOO_MUCH, "a.jpg"),
    photos("JPEG whose EXIF points 5,000 times to the same", jpeg(segment(0xE1, laughing_exif())), LAUGHS, "a.jpg"),
    photos("JPEG cut in half", good_jpeg()[: len(good_jpeg()) // 2], CUT, "a.jpg"),
    photos("JPEG of size zero", resized_jpeg(0, 0), "header is damaged|cut off|broken", "a.jpg"),
    photos("JPEG whose tables are missing", rewritten(good_jpeg(), (b"\xff\xdb", b"\xff\xee")), ".", "a.jpg"),
    photos("JPEG of 12 bits", rewritten(good_jpeg(), (b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")), ".", "a.jpg"),
    photos("GIF of 65,535 x 65,535", gif(65_535, 65_535), TOO_LARGE, "a.gif"),
    photos("GIF with a comment of 2 MiB", gif(16, 16, COMMENT * 8192 + b"\0"), "1 MiB before its first image", "a.gif"),
    photos(
        "GIF with a comment of 2 MiB in one piece",
        gif(16, 16, b"!\xfe" + (b"\xff" + b"c" * 255) * 8192 + b"\0"),
        "1 MiB before its first image",
        "a.gif",
    ),
    photos("GIF of 3,000 frames", animation("GIF", 3000), r"read: .*a\.gif GIF 8x8", "a.gif"),
    photos("GIF cut off", gif(16, 16)[:820], CUT, "a.gif"),
    photos("WebP of 16,384 x 16,384", webp(extended(16_384, 16_384), (b"VP8L", still())), TOO_LARGE, "a.webp"),
    photos(
        "WebP of 16,777,216 x 16,777,216",
        webp(extended(2**24, 2**24), (b"VP8L", still())),
        TOO_LARGE,
        "a.webp",
    ),
    photos(
        "WebP whose pixels claim 16,384 x 16,384",
        webp((b"VP8L", b"\x2f\xff\xff\xff\x0f" + still()[5:])),
        TOO_LARGE,
        "a.webp",
    ),
    photos(
        "WebP whose EXIF points 5,000 times to the same",
        webp(extended(16, 16, 8), (b"VP8L", still()), (b"EXIF", laughing_exif()[6:])),
        LAUGHS,
        "a.webp",
    ),
    photos(
        "WebP with a color profile of 40 MiB",
        webp(extended(16, 16, 32), (b"ICCP", bytes(40 * 2**20)), (b"VP8L", still())),
        TOO_MUCH,
        "a.webp",
    ),
    photos(
        "WebP in 200,000 pieces",
        webp(extended(16, 16), (b"VP8L", still()), *[(b"junk", b"")] * 200_000),
        TOO_MUCH,
        "a.webp",
    ),
    photos("WebP of 1,000 frames", animation("WEBP", 1000), r"read: .*a\.webp WEBP 8x8", "a.webp"),
    photos("WebP cut off", webp((b"VP8L", still()))[:200], "damaged|cut off|could not", "a.webp"),
    photos("WebP as large as is allowed", large_webp, "read", "a.webp", True),
    photos("TIFF of 100,000 x 100,000", plain_tiff(100_000, 100_000), TOO_LARGE, "a.tif"),
    photos(
        "TIFF of 4,294,967,295 x 4,294,967,295", plain_tiff(2**32 - 1, 2**32 - 1), "a side may have|damaged", "a.tif"
    ),
    photos("TIFF of 8,000 x 8,000 without pixels", plain_tiff(8_000, 8_000), "cut off|truncated|processed", "a.tif"),
    photos(
        "TIFF of tiles of 1,000,000 x 1,000,000",
        plain_tiff(16, 16, (322, 4, 1, 10**6), (323, 4, 1, 10**6), (324, 4, 1, 8), (325, 4, 1, 64)),
        TOO_LARGE,
        "a.tif",
    ),
    photos(
        "TIFF with 2,000,000,000 strips",
        plain_tiff(16, 16, (273, 4, 2 * 10**9, 8)),
        "claims 2,000,000,000 values",
        "a.tif",
    ),
    photos(
        "TIFF whose 5,000 tags point to the same",
        tiff([(40_000 + i, 7, 10**6, 8) for i in range(5000)], bytes(2**20)),
        LAUGHS,
        "a.tif",
    ),
    photos("TIFF with 65,535 channels", plain_tiff(16, 16, (277, 3, 1, 65_535)), ".", "a.tif"),
    photos("TIFF whose next page is itself", plain_tiff(4, 4, following=8), r"read: .*a\.tif TIFF 4x4", "a.tif"),
    photos("TIFF of 200 pages", many_pages, r"read: .*a\.tif TIFF 8x8", "a.tif"),
    photos("TIFF whose tags lie beyond its end", b"II*\0" + struct.pack("<L", 2**31) + bytes(64), ".", "a.tif"),
    photos(
        "BigTIFF of 2**60 tags", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(64), "tags|damaged", "a.tif"
    ),
    photos("TIFF of 16 bits as large as is allowed", large_deep, "read", "a.tif", True),
    photos("BMP of 2,147,483,647 x 2,147,483,647", bmp(2**31 - 1, 2**31 - 1), "a side may have", "a.bmp"),
    photos("BMP of 50,000 x 50,000", bmp(50_000, 50_000), TOO_LARGE, "a.bmp"),
    photos("BMP of -8,000 rows without pixels", bmp(8_000, -8_000), CUT, "a.bmp"),
    photos("BMP of 8,000 x 8,000, run-length coded", bmp(8_000, 8_000, 1, 8, 256), "slow to read", "a.bmp"),
    photos("BMP with 4,294,967,295 colors", bmp(16, 16, 0, 8, 2**32 - 1), ".", "a.bmp"),
    photos("BMP whose pixels lie beyond its end", bmp(16, 16, offset=2**31), CUT, "a.bmp"),
    photos("PPM of 1,000,000 x 1,000,000", b"P6 1000000 1000000 255\n" + bytes(64), TOO_LARGE, "a.ppm"),
    photos("PPM of 10**400 columns", b"P6 " + b"9" * 400 + b" 1 255\n", ".", "a.ppm"),
    photos(
        "PPM with a comment of 1 MiB", b"P6 #" + b"c" * 2**20 + b"\n4 4 255\n" + bytes(48), "within 64 KiB", "a.ppm"
    ),
    photos("PPM of 8,000 x 8,000 in decimal", b"P3 8000 8000 255\n" + b"1 " * 64, "slow to read", "a.ppm"),
    photos("PPM of 8,000 x 8,000 with 100 levels", b"P6 8000 8000 100\n" + bytes(64), "slow to read", "a.ppm"),
    photos("PBM of 100,000 x 100,000", b"P4 100000 100000\n" + bytes(64), TOO_LARGE, "a.pbm"),
    photos("PFM of 50,000 x 50,000", b"Pf 50000 50000 -1.0\n" + bytes(64), TOO_LARGE, "a.ppm"),
    photos("PGM without a size", b"P5 " + b" " * 2**20, "within 64 KiB", "a.pgm"),
    photos("SVG named .png", b"<svg><!ENTITY a 'aaaa'></svg>", "not an image, despite its name", "a.png"),
    photos("PostScript named .jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (w) file\n", "not an image", "a.jpg"),
    photos("pickle named .jpg", b"cos\nsystem\n(S'touch executed'\ntR.", "not an image", "a.jpg"),
    photos("empty file", b"", "not an image", "a.png"),
    photos("file of 300 GB with holes", holed(300 * 2**30), "322,122,547,200 bytes, more than an image", "a.png"),
    photos("file of 250 MiB with holes", holed(250 * 2**20), "damaged|cut off|besides", "a.png"),
    photos("broken link", lambda path: path.symlink_to("nowhere.png"), "broken link", "a.png"),
    photos("link to itself", lambda path: path.symlink_to(path.name), "too many levels|broken link", "a.png"),
    photos("link to endless zeros", lambda path: path.symlink_to("/dev/zero"), r"read: good\.png", "a.png"),
    photos("named pipe", lambda path: os.mkfifo(path), r"read: good\.png", "a.png"),
]
