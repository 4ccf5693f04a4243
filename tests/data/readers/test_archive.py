import os
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.making import add_to_tar, contents, create_tar, encoded, noise, opened, write_tar, write_zip

from undiffuse.data.readers.archive import archive_signature, archive_source
from undiffuse.data.store import cache_folder

IMAGES = {f"photos/{name}": encoded(noise(i)) for i, name in enumerate(["cats/1.PNG", "dogs/ü [2].png", "cats/3.png"])}
WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": write_zip,
    "tar": write_tar,
    "tar.gz": write_tar,
    "tgz": write_tar,
    "tar.bz2": write_tar,
    "tar.xz": write_tar,
}


def written(suffix: str, members: dict[str, bytes]) -> Path:
    return WRITERS[suffix](Path(f"photos.{suffix}"), members)


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_archive_equals_the_folder_with_the_same_files(tmp_path: Path, suffix: str) -> None:
    members = {
        "photos/train/cats/1.PNG": encoded(noise(0)),
        "photos/train/dogs/ü [2].jpg": encoded(noise(1), "JPEG"),
        "photos/train/dogs/cut.jpg": encoded(noise(2), "JPEG")[:300],
        "photos/test/cats/3.png": encoded(noise(3)),
        "photos/train/notes.txt": b"text",
        "__MACOSX/photos/train/cats/._1.PNG": b"hidden",
    }
    for name, content in members.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    archive = written(suffix, members)
    for split in ("auto", "test", "all"):
        from_archive, from_folder = opened(archive, split=split), opened("folder/photos", split=split)
        prefixed = {f"photos/{name}": content for name, content in contents(from_folder).items()}
        assert contents(from_archive) == prefixed
        assert from_archive.class_names == from_folder.class_names == ("cats", "dogs")
        assert from_archive.shape == from_folder.shape
        assert from_archive.skipped == tuple((f"photos/{name}", why) for name, why in from_folder.skipped)
        assert from_archive.name == "photos"


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_nothing_is_written_outside_of_the_cache(tmp_path: Path, suffix: str) -> None:
    evil = encoded(noise(9))
    members = {
        **IMAGES,
        "../up.png": evil,
        "../../cats/up.png": evil,
        "cats/../../up.png": evil,
        f"{tmp_path}/absolute.png": evil,
        "C:\\windows\\absolute.png": evil,
    }
    (tmp_path / "sub").mkdir()
    archive = WRITERS[suffix](tmp_path / "sub" / f"photos.{suffix}", members)
    store = opened(archive)
    assert {*IMAGES} <= set(store.names)
    outside = [path for path in tmp_path.rglob("*") if cache_folder() not in (path, *path.parents)]
    assert sorted(outside) == [tmp_path / "sub", archive]
    assert not {path.name for path in cache_folder().rglob("*")} & {"up.png", "absolute.png"}


def test_links_and_devices_in_a_tar_are_not_images() -> None:
    with create_tar(Path("photos.tar")) as archive:
        for name, kind in [
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("device.png", tarfile.CHRTYPE),
            ("block.png", tarfile.BLKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
            ("folder.png", tarfile.DIRTYPE),
        ]:
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
        add_to_tar(archive, "./good.png", encoded(noise(0)))
    assert contents(opened("photos.tar")) == {"good.png": (None, noise(0).tobytes())}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_odd_names_in_a_tar_are_kept(format: int) -> None:
    long = [f"{'folder/' * 10}{'n' * 90}-{i}.png" for i in range(3)]
    with create_tar(Path("photos.tar"), format=format) as archive:
        for i, name in enumerate(long):
            add_to_tar(archive, name, encoded(noise(i)))
    assert {name: pixels for name, (_, pixels) in contents(opened("photos.tar")).items()} == {
        name: noise(i).tobytes() for i, name in enumerate(long)
    }


def test_a_tar_whose_last_file_is_a_zip_is_a_tar(notices: pytest.LogCaptureFixture) -> None:
    inner = write_zip(Path("inner.zip"), {"inside.png": encoded(noise(9))}).read_bytes()
    tar = write_tar(Path("photos.tar"), {**IMAGES, "photos/more.zip": inner})
    assert set(opened("photos.tar").names) == set(IMAGES)
    not_opened = f"1 archive inside {tar.absolute()} not opened: unpack them first to have their images."
    assert notices.messages == [not_opened]
    notices.clear()
    opened(write_tar(tar, IMAGES))
    assert notices.messages == []


def test_archives_are_told_apart_by_content_not_by_name() -> None:
    write_zip(Path("photos.zip"), IMAGES).rename("really-a-zip.tar")
    write_tar(Path("photos.tar"), IMAGES).rename("really-a-tar.zip")
    assert contents(opened("really-a-zip.tar")) == contents(opened("really-a-tar.zip"))


def test_the_first_of_two_members_with_one_name_is_taken() -> None:
    with create_tar(Path("photos.tar")) as archive:
        for i in range(2):
            add_to_tar(archive, "same.png", encoded(noise(i)))
    assert contents(opened("photos.tar")) == {"same.png": (None, noise(0).tobytes())}


def claim(archive: Path, name: str, size: int) -> None:
    """Makes the directory of a .zip claim another size for a member."""
    content = bytearray(archive.read_bytes())
    entry = content.index(b"PK\x01\x02")
    while content[entry + 46 : entry + 46 + len(name)] != name.encode():
        entry = content.index(b"PK\x01\x02", entry + 1)
    content[entry + 24 : entry + 28] = struct.pack("<I", size)
    archive.write_bytes(content)


def test_a_zip_that_claims_gigabytes_is_refused_as_a_bomb() -> None:
    archive = write_zip(Path("photos.zip"), IMAGES)
    claim(archive, "photos/cats/3.png", 2**31)
    with pytest.raises(ValueError, match="decompression bomb") as caught:
        opened(archive)
    assert str(archive.absolute()) in str(caught.value)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz"])
def test_a_tar_that_claims_gigabytes_is_refused_as_a_bomb(suffix: str) -> None:
    header = tarfile.TarInfo("huge.png")
    header.size = 2**31
    with create_tar(Path(f"photos.{suffix}")) as archive:
        archive.addfile(header)
    with pytest.raises(ValueError, match="decompression bomb"):
        opened(f"photos.{suffix}")


@pytest.mark.parametrize("before", [{}, IMAGES], ids=["first", "last"])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_with_a_name_of_megabytes_is_refused(format: int, before: dict[str, bytes]) -> None:
    # tarfile would read a name of any length into memory, and a few kilobytes of .tar.xz can hold one of gigabytes.
    with create_tar(Path("photos.tar.xz"), format=format) as archive:
        for name, content in before.items():
            add_to_tar(archive, name, content)
        add_to_tar(archive, "n" * 2**21 + ".png", encoded(noise(9)))
    with pytest.raises(ValueError, match=r"photos\.tar\.xz is not a readable \.zip or \.tar"):
        opened("photos.tar.xz")


def test_a_member_that_claims_too_much_is_left_out() -> None:
    archive = write_zip(Path("photos.zip"), IMAGES)
    claim(archive, "photos/cats/3.png", 600_000_000)
    store = opened(archive)
    assert store.skipped == (("photos/cats/3.png", "it claims 600,000,000 bytes"),)
    assert set(store.names) == {*IMAGES} - {"photos/cats/3.png"}


def test_a_member_that_claims_too_little_is_skipped() -> None:
    archive = write_zip(Path("photos.zip"), IMAGES)
    claim(archive, "photos/cats/3.png", 50)
    store = opened(archive)
    assert [name for name, _ in store.skipped] == ["photos/cats/3.png"]
    assert set(store.names) == {*IMAGES} - {"photos/cats/3.png"}


def encrypt(content: bytearray) -> None:
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1


def damage(content: bytearray) -> None:
    content[content.index(b"IDAT") + 20] ^= 0xFF


@pytest.mark.parametrize(("spoil", "reason"), [(encrypt, "encrypted"), (damage, "CRC")])
def test_an_encrypted_or_damaged_member_is_named_and_left_out(spoil: Callable[[bytearray], None], reason: str) -> None:
    archive = write_zip(Path("photos.zip"), IMAGES)
    content = bytearray(archive.read_bytes())
    spoil(content)
    archive.write_bytes(content)
    store = opened(archive)
    ((name, why),) = store.skipped
    assert name == "photos/cats/1.PNG"
    assert reason in why
    assert contents(store) == {
        "photos/dogs/ü [2].png": ("dogs", noise(1).tobytes()),
        "photos/cats/3.png": ("cats", noise(2).tobytes()),
    }
    with pytest.raises(ValueError, match=r"1\.PNG in .*photos\.zip cannot be decoded"):
        opened(archive, strict=True)


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_truncated_archive_is_refused(suffix: str, fraction: float) -> None:
    archive = written(suffix, {**IMAGES, **{f"photos/cats/{i}.png": encoded(noise(i)) for i in range(10, 30)}})
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ValueError, match=r"photos\.[a-z.0-9]+ is not a readable \.zip or \.tar") as caught:
        opened(archive)
    assert str(archive.absolute()) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tar_cut_off_within_a_header_is_refused() -> None:
    archive = write_tar(Path("photos.tar"), IMAGES)
    second = archive.read_bytes().index(b"photos/cats/3")
    archive.write_bytes(archive.read_bytes()[: second + 200])
    with pytest.raises(ValueError, match=r"photos\.tar is not a readable \.zip or \.tar"):
        opened(archive)


def test_a_tar_with_a_damaged_header_is_refused() -> None:
    archive = write_tar(Path("photos.tar"), IMAGES)
    content = bytearray(archive.read_bytes())
    content[content.index(b"photos/cats/3")] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"photos\.tar is not a readable \.zip or \.tar"):
        opened(archive)


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz", "photo.jpg"])
@pytest.mark.parametrize(
    "content", [b"", b"I am text\n" * 300, encoded(noise(0), "JPEG")], ids=["empty", "text", "jpeg"]
)
def test_a_file_that_is_not_an_archive_is_refused(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a readable \.zip or \.tar") as caught:
        opened(name)
    assert str(Path(name).absolute()) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_an_archive_without_images_is_refused(suffix: str) -> None:
    with pytest.raises(ValueError, match=r"photos\.[a-z]+ contains no images"):
        opened(written(suffix, {"notes.txt": b"text"}))


def test_the_same_archive_elsewhere_is_not_decoded_again(tmp_path: Path) -> None:
    first = opened(write_zip(tmp_path / "photos.zip", IMAGES))
    (tmp_path / "elsewhere").mkdir()
    second = opened((tmp_path / "photos.zip").rename(tmp_path / "elsewhere" / "photos.zip"))
    assert first.folder == second.folder


def test_a_change_within_the_clocks_tick_is_seen_a_mebibyte_from_either_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "photos.tar"
    archive.write_bytes(bytes(3 * 2**20))
    status = archive.stat()
    monkeypatch.setattr(os, "fstat", lambda file: status)
    before = archive_signature(archive)
    for place, seen in {2**20 - 1: True, 2**20: False, -(2**20): True, -(2**20) - 1: False}.items():
        content = bytearray(3 * 2**20)
        content[place] = 1
        archive.write_bytes(content)
        assert (archive_signature(archive) != before) == seen, place


def refusal(archive: Path) -> str | None:
    """The error for the archive; None if all its members can be read, whether they are good images or not."""
    try:
        source = archive_source(archive)
    except ValueError as error:
        return str(error)
    assert len(list(source.images())) == source.total_images
    return None


@pytest.mark.parametrize("suffix", WRITERS)
def test_random_damage_is_an_error_or_a_bad_image(suffix: str) -> None:
    rng = random.Random(0)
    archive = written(suffix, IMAGES)
    whole = archive.read_bytes()
    refusals = []
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3, 10])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        archive.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        refusals.append(refusal(archive))
    errors = [error for error in refusals if error is not None]
    assert errors
    assert all(error.startswith(str(archive.absolute())) for error in errors)
