"""Zip files whose directories are long, are in zip64's form, or ask for what zipfile would unpack all at once."""

import struct
import zipfile
from pathlib import Path

import pytest
from helpers.making import contents, encoded, noise, opened, write_zip

from undiffuse.data.readers import zips
from undiffuse.data.readers.zips import END, END64, open_zip, read_entry

IMAGES = {f"photos/{name}": encoded(noise(i)) for i, name in enumerate(["cats/1.png", "dogs/2.png", "cats/3.png"])}


def as_zip64(path: Path, more: int = 0) -> Path:
    """The zip file with its directory's place and size, and `more`, in the records for files above 4 GiB."""
    content = path.read_bytes()
    *_, entries, size, at, _ = END.unpack(content[-END.size :])
    record = END64.pack(b"PK\6\6", END64.size - 12, 45, 45, 0, 0, entries, entries, size + more, at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + size, 1)
    last = END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(content[: -END.size] + record + locator + last)
    return path


def names(path: Path) -> list[str]:
    with open_zip(path) as archive:
        return archive.namelist()


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")])
def test_a_member_whose_unpacking_cannot_be_bounded_is_left_out(method: int, name: str) -> None:
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for (path, content), how in zip(
            IMAGES.items(), (method, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), strict=True
        ):
            archive.writestr(path, content, how)
    store = opened("photos.zip")
    reason = f"it is compressed by {name}: make a zip file in the ordinary way (deflate)"
    assert store.skipped == (("photos/cats/1.png", reason),)
    assert set(store.names) == {*IMAGES} - {"photos/cats/1.png"}


def test_an_entry_is_unpacked_up_to_what_is_allowed() -> None:
    with open_zip(write_zip(Path("photos.zip"), {"a": bytes(100)})) as archive:
        (info,) = archive.infolist()
        assert read_entry(archive, info, 100) == bytes(100)
        with pytest.raises(ValueError, match="it claims 100 bytes"):
            read_entry(archive, info, 99)
        info.file_size = 99
        with pytest.raises(ValueError, match=r"its checksum \(CRC\) is wrong: .*, or states a wrong length"):
            read_entry(archive, info, 99)


def test_zip64_is_the_same_archive() -> None:
    plain = contents(opened(write_zip(Path("photos.zip"), IMAGES)))
    assert contents(opened(as_zip64(Path("photos.zip")))) == plain


@pytest.mark.parametrize("large", [False, True], ids=["zip", "zip64"])
def test_entries_are_counted_before_they_are_kept(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(Path("photos.zip"), IMAGES)
    if large:
        as_zip64(path)
    monkeypatch.setattr(zips, "MAX_ENTRIES", 3)
    assert names(path) == [*IMAGES]
    monkeypatch.setattr(zips, "MAX_ENTRIES", 2)
    with pytest.raises(zipfile.BadZipFile, match="it has more than 2 entries"):
        names(path)


def test_a_directory_is_no_longer_than_the_file_nor_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(Path("photos.zip"), IMAGES)
    at = END.unpack(path.read_bytes()[-END.size :])[6]
    with pytest.raises(zipfile.BadZipFile, match="its directory claims more than the file holds"):
        names(as_zip64(path, more=at + 1))
    path = write_zip(Path("photos.zip"), IMAGES)
    monkeypatch.setattr(zips, "MAX_DIRECTORY_BYTES", 100)
    with pytest.raises(zipfile.BadZipFile, match=r"its directory has 0 MiB: make a \.tar"):
        names(path)
