"""Hostile .zip and .tar files."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from helpers.hostile.case import Case, reading
from helpers.hostile.images import zeros
from helpers.making import add_to_tar, create_tar, encoded, noise, write_tar, write_zip

BOMB = r"photos\.[a-z.0-9]+ is a decompression bomb: it (unpacks to more than 200 times|has more than)"
UNREADABLE = r"photos\.[a-z.0-9]+ is not a readable \.zip or \.tar"
SPARSE = "holds a sparse file: make it again without tar's --sparse"

GOOD = encoded(noise(0))
IMAGES = {"cats/good.png": GOOD, "cats/a.png": encoded(noise(1))}


def archive(name: str, make: Callable[[Path], object], sentence: str, suffix: str, slow: bool = False) -> Case:
    path = f"photos.{suffix}"
    return Case(name, lambda: make(Path(path)), lambda: reading(path), sentence, slow)


def entry(name: bytes, size: int, packed: int, crc: int = 0, method: int = 0, flags: int = 0, at: int = 0) -> bytes:
    """An entry of a zip file's directory."""
    sizes = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, flags, method, 0, 33, crc, packed, size, len(name), 0, 0, 0, 0, 0, at
    )
    return sizes + name


def local(name: bytes, size: int, packed: int, crc: int = 0, method: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 33, crc, packed, size, len(name), 0) + name


def end(entries: int, size: int, at: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, min(entries, 65_535), min(entries, 65_535), size, at, 0)


def zipped(content: bytes, claims: int, method: int, name: bytes = b"cats/a.png", entries: int = 1):
    """A function that writes a zip file of a good image and others that share their content, and claim this size."""

    def write(path: Path) -> None:
        good = local(b"cats/good.png", len(GOOD), len(GOOD), zlib.crc32(GOOD)) + GOOD
        other = local(name, claims, len(content), method=method) + content
        directory = entry(b"cats/good.png", len(GOOD), len(GOOD), zlib.crc32(GOOD))
        for i in range(entries):
            directory += entry(b"%d" % i + name if i else name, claims, len(content), method=method, at=len(good))
        path.write_bytes(good + other + directory + end(entries + 1, len(directory), len(good + other)))

    return write


def raw(stream: bytes) -> bytes:
    """Deflate without zlib's two bytes in front."""
    return stream[2:]


def spoiled(*changes: tuple[bytes, int, int]):
    """A function that writes a good zip file with bytes changed: after which mark, how far, and to what."""

    def write(path: Path) -> None:
        content = bytearray(write_zip(path, IMAGES).read_bytes())
        for mark, offset, value in changes:
            content[content.index(mark) + offset] ^= value
        path.write_bytes(content)

    return write


def many_entries(path: Path) -> None:
    directory = entry(b"a.png", 0, 0) * 1_500_000
    path.write_bytes(directory + end(1, len(directory), 0))


def long_directory(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(b"PK")
        file.truncate(300 * 2**20)
        file.seek(0, io.SEEK_END)
        file.write(end(1, 300 * 2**20, 0))


def nested(path: Path) -> None:
    inner = write_zip(Path("inner.zip"), IMAGES).read_bytes()
    write_zip(path, {f"{i}.zip": inner for i in range(16)})


def nested_beside(path: Path) -> None:
    inner = write_zip(Path("inner.zip"), IMAGES).read_bytes()
    write_zip(path, {"cats/good.png": GOOD, "cats/a.png": inner})


def of_method(method: int):
    def write(path: Path) -> None:
        write_zip(path, {"cats/good.png": GOOD})
        with zipfile.ZipFile(path, "a", method) as file:
            file.writestr("cats/a.png", bytes(2**26))

    return write


def named(*names: str):
    def write(path: Path) -> None:
        write_zip(path, {"cats/good.png": GOOD, **dict.fromkeys(names, b"no image")})

    return write


def claiming(size: int):
    """A function that writes a tar whose only member claims this size."""

    def write(path: Path) -> None:
        header = tarfile.TarInfo("a.png")
        header.size = size
        with create_tar(path) as file:
            add_to_tar(file, "good.png", GOOD)
            file.addfile(header)

    return write


def members_of_zeros(pack: Callable[[bytes], bytes], count: int, mebibytes: int = 64):
    """A function that writes a compressed tar of members full of zeros: each is packed once, and repeated."""

    def write(path: Path) -> None:
        piece = bytearray()
        for i in range(mebibytes):
            if i == 0:
                header = tarfile.TarInfo("a.png")
                header.size = mebibytes * 2**20
                piece += pack(header.tobuf())
            piece += pack(bytes(2**20))
        path.write_bytes(bytes(piece) * count + pack(bytes(2**10)))

    return write


def empty_members(path: Path) -> None:
    piece = gzip.compress(tarfile.TarInfo("a.txt").tobuf() * 10_000)
    path.write_bytes(piece * 60 + gzip.compress(bytes(1024)))


def greedy_xz(path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]
    content = bytearray(lzma.compress(write_tar(Path("photos.tar"), IMAGES).read_bytes(), filters=filters))
    at = content.index(bytes([0x21, 1]), 12) + 2  # LZMA2's only property: the size of its dictionary.
    content[at] = 40  # 4 GiB.
    start, length = 12, (content[12] + 1) * 4
    content[start + length - 4 : start + length] = struct.pack("<L", zlib.crc32(content[start : start + length - 4]))
    path.write_bytes(content)


def gnu_sparse(path: Path) -> None:
    header = tarfile.TarInfo("a.png")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1  # More lists of holes follow.
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    more = (b"0" * 11 + b"\0") * 42 + b"\1" + bytes(7)
    path.write_bytes(gzip.compress(bytes(block)) + gzip.compress(more * 20_000) * 50)


def pax_sparse(path: Path) -> None:
    keys = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.png", "GNU.sparse.realsize": "9"}
    header = tarfile.TarInfo("a.png")
    header.size, header.pax_headers = 2**30, keys
    start = gzip.compress(header.tobuf(tarfile.PAX_FORMAT) + b"900000000\n".ljust(512, b"0"))
    path.write_bytes(start + gzip.compress(b"0\n" * 2**20) * 200)


def long_chain(path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    path.write_bytes((header.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 5_000 + bytes(1024))


def huge_number(path: Path) -> None:
    body = b"9" * 10_000 + b" path=a.png\n"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    path.write_bytes(header.tobuf() + body + bytes(-len(body) % 512) + tarfile.TarInfo("a.png").tobuf() + bytes(1024))


def long_name(format: int, length: int):
    def write(path: Path) -> None:
        with create_tar(path, format=format) as file:
            add_to_tar(file, "good.png", GOOD)
            add_to_tar(file, "n" * length + ".png", GOOD)

    return write


def links(path: Path) -> None:
    with create_tar(path) as file:
        add_to_tar(file, "good.png", GOOD)
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.CHRTYPE)):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            file.addfile(header)


def half(path: Path, members: Mapping[str, bytes] = IMAGES) -> None:
    whole = (write_zip if path.suffix == ".zip" else write_tar)(path, dict(members)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def nested_tar(path: Path) -> None:
    write_tar(path, {"a.tar.gz": write_tar(Path("inner.tar.gz"), IMAGES).read_bytes()})


CLAIMS = 200 * 2**20
ODD = "cats/<script>alert(1)</script>\n\x1b[31mred\x07\u202egnp.png"

CASES: list[Case] = [
    archive(
        "zip whose image claims 100 bytes and unpacks to 1 GB",
        zipped(raw(zeros(2**30)), 100, 8),
        "a.png: its checksum",
        "zip",
    ),
    archive("zip whose image claims 200 MiB and holds 1 KB", zipped(raw(zeros(2**20)), CLAIMS, 8), "a.png: it", "zip"),
    archive(
        "zip whose image claims 500 MiB",
        zipped(raw(zeros(2**29)), 2**29, 8),
        "a.png: it claims 536,870,912 bytes",
        "zip",
    ),
    archive("zip that claims 4 GiB", zipped(raw(zeros(2**20)), 2**32 - 2, 8), BOMB, "zip"),
    archive(
        "zip of 3,000 images that share the same 100 MiB",
        zipped(raw(zeros(2**20)), 100 * 2**20, 8, entries=3000),
        BOMB,
        "zip",
    ),
    archive(
        "zip packed with bzip2, 100 bytes claimed, 6 GB unpacked",
        zipped(bz2.compress(bytes(2**26)) * 100, 100, 12),
        "compressed by bzip2",
        "zip",
    ),
    archive("zip packed with bzip2", of_method(zipfile.ZIP_BZIP2), "compressed by bzip2: make a zip file", "zip"),
    archive("zip packed with LZMA", of_method(zipfile.ZIP_LZMA), "compressed by lzma", "zip"),
    archive("zip packed with an unknown method", zipped(b"x" * 50, 50, 97), "compressed by an unusual method", "zip"),
    archive("zip of 1,500,000 entries", many_entries, "more than 1,000,000 entries: make a .tar", "zip"),
    archive("zip with a directory of 300 MiB", long_directory, "directory has 300 MiB", "zip"),
    archive(
        "zip whose directory claims 4 GiB",
        lambda path: path.write_bytes(end(1, 2**32 - 1, 0)),
        "claims more than the file holds",
        "zip",
    ),
    archive("zip whose directory is missing", lambda path: half(path), UNREADABLE, "zip"),
    archive(
        "zip with a second directory in its comment",
        lambda path: path.write_bytes(end(1, 0, 0)[:-2] + b"\x20\0" + end(1, 99, 0)),
        UNREADABLE,
        "zip",
    ),
    archive(
        "zip that is encrypted",
        spoiled((b"PK\3\4", 6, 1), (b"PK\1\2", 8, 1)),
        "it is encrypted: unpack the archive",
        "zip",
    ),
    archive("zip whose checksum is wrong", spoiled((b"IDAT", 20, 0xFF)), r"its checksum \(CRC\) is wrong", "zip"),
    archive(
        "zip whose names differ in its two places",
        spoiled((b"cats/good", 0, 1)),
        "its name in the archive's directory",
        "zip",
    ),
    archive(
        "zip whose entry lies beyond its end",
        spoiled((b"PK\1\2", 45, 0x7F)),
        "its place in the archive is damaged",
        "zip",
    ),
    archive(
        "zip of 16 zips", nested, "contains no images but 16 archives, which are not opened: unpack it first", "zip"
    ),
    archive("zip with a zip named .png", nested_beside, "a.png: not an image, despite its name", "zip"),
    archive(
        "zip with markup, a line break and colors in a name",
        named(ODD),
        r"<script>alert\(1\)</script>\ufffd\ufffd\[31mred",
        "zip",
    ),
    archive(
        "zip with names that lead out of it",
        named("../../a.png", "/etc/b.png"),
        "/etc/b.png: not an image, despite its name",
        "zip",
    ),
    archive(
        "zip with a name of 60,000 characters",
        named("n" * 60_000 + ".png"),
        "a name in it has 60,004 characters",
        "zip",
    ),
    archive(
        "zip with a name of 20,000 folders", named("a/" * 20_000 + "a.png"), "a name in it has 40,005 characters", "zip"
    ),
    archive("zip of nothing", lambda path: path.write_bytes(end(0, 0, 0)), "contains no images", "zip"),
    archive("empty file named .zip", lambda path: path.touch(), UNREADABLE, "zip"),
    archive("tar whose image claims 8 TiB", claiming(2**43), BOMB, "tar"),
    archive("tar whose image claims 500 MiB", claiming(2**29), UNREADABLE + "|a.png: it claims 536,870,912", "tar"),
    archive("tar.gz of 3 GB of zeros", members_of_zeros(gzip.compress, 48), BOMB, "tar.gz"),
    archive("tar.bz2 of 3 GB of zeros", members_of_zeros(bz2.compress, 48), BOMB, "tar.bz2"),
    archive("tar.xz of 3 GB of zeros", members_of_zeros(lzma.compress, 48), BOMB, "tar.xz"),
    archive("tar.xz whose decoder asks for 4 GiB", greedy_xz, UNREADABLE, "tar.xz"),
    archive("tar.gz of 600,000 empty members", empty_members, BOMB, "tar.gz"),
    archive(
        "tar.gz of 4,000,000 streams of nothing",
        lambda path: path.write_bytes(gzip.compress(b"") * 4_000_000),
        "it is 10,001 compressed files one after another",
        "tar.gz",
    ),
    archive(
        "tar.bz2 of 4,000,000 streams of nothing",
        lambda path: path.write_bytes(bz2.compress(b"") * 4_000_000),
        "it is 10,001 compressed files one after another",
        "tar.bz2",
    ),
    archive("tar.gz of a sparse file with 21,000,000 holes", gnu_sparse, SPARSE, "tar.gz"),
    archive("tar.gz of a sparse file with 200,000,000 holes in PAX", pax_sparse, SPARSE, "tar.gz"),
    archive("tar with a name of 2 MiB", long_name(tarfile.GNU_FORMAT, 2**21), "a header claims", "tar"),
    archive("tar.xz with a PAX name of 2 MiB", long_name(tarfile.PAX_FORMAT, 2**21), "a header claims", "tar.xz"),
    archive(
        "tar with a name of 20,000 characters", long_name(tarfile.GNU_FORMAT, 20_000), "a name in it has 20,004", "tar"
    ),
    archive("tar with 5,000 names for one file", long_chain, UNREADABLE, "tar"),
    archive("tar with a number of 10,000 digits", huge_number, UNREADABLE + "|contains no images", "tar"),
    archive("tar with links and devices", links, r"read: good\.png", "tar"),
    archive("tar.gz cut in half", half, UNREADABLE, "tar.gz"),
    archive("tar.xz cut in half", half, UNREADABLE, "tar.xz"),
    archive("tar.bz2 cut in half", half, UNREADABLE, "tar.bz2"),
    archive("tar of a tar.gz", nested_tar, "contains no images but 1 archive", "tar"),
]
