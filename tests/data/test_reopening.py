"""Images that have been decoded are opened again from what is cheap to see; whatever is cheap to see is looked at."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.making import contents, encoded, noise, opened, save, save_noise, write_tar, write_zip

from undiffuse.data import store
from undiffuse.data.readers import archive, folder
from undiffuse.data.store import DataConfig, open_store

NAMES = [f"{kind}/{i}.png" for kind in ("cats", "dogs") for i in range(20)]


def make(kind: str) -> Path:
    if kind == "folder":
        return save_noise(Path("photos"), *NAMES)
    members = {name: encoded(noise(i, 64, 64)) for i, name in enumerate(NAMES)}
    return (write_zip if kind == "zip" else write_tar)(Path(f"photos.{kind}"), members)


KINDS = pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])


@KINDS
def test_nothing_is_listed_or_hashed_again(kind: str, monkeypatch: pytest.MonkeyPatch, notices) -> None:
    data = make(kind)
    if data.is_dir():
        (data / "notes.txt").touch()
    first, told = opened(data), list(notices.messages)
    notices.clear()

    def forbid(*arguments: object) -> None:
        pytest.fail("the images were opened again")

    for module, name in ((archive, "_members"), (archive, "_content"), (folder, "_content"), (folder, "read_layout")):
        monkeypatch.setattr(module, name, forbid)
    monkeypatch.setattr(store, "open_source", forbid)
    assert opened(data) == first
    assert notices.messages == told
    assert bool(told) == data.is_dir()  # "1 other file: .txt 1."


def overwrite_in_the_middle(data: Path) -> None:
    """The same size and modification time: only the change time tells."""
    file = data if data.is_file() else data / NAMES[3]
    before = file.stat()
    with open(file, "r+b") as opened_file:
        opened_file.seek(before.st_size // 2)
        opened_file.write(b"\0\0\0\0")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_others(data: Path) -> None:
    """Other images under the same names."""
    if data.is_file():
        members = {name: encoded(noise(100 + i, 64, 64)) for i, name in enumerate(NAMES)}
        (write_zip if data.suffix == ".zip" else write_tar)(data, members)
    else:
        save(data / NAMES[5], noise(100))


@KINDS
def test_other_images_under_the_same_name_are_seen(kind: str) -> None:
    data = make(kind)
    first = opened(data)
    replace_by_others(data)
    second = opened(data)
    assert second.content != first.content
    assert second.folder != first.folder


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_damage_that_keeps_size_and_modification_time_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "END_BYTES", 10)
    data = make(kind)
    first = opened(data)
    overwrite_in_the_middle(data)
    second = opened(data)
    assert second.content != first.content
    assert (len(first.skipped), len(second.skipped)) == (0, 1)


def test_a_file_that_moves_to_another_class_is_seen() -> None:
    data = make("folder")
    first = opened(data)
    (data / NAMES[0]).rename(data / "dogs" / "moved.png")
    assert contents(opened(data)).keys() - contents(first).keys() == {"dogs/moved.png"}


@KINDS
def test_each_option_has_a_store_of_its_own(kind: str) -> None:
    data = make(kind)
    ways: list[dict[str, Any]] = [{}, {"size": (16, 24)}, {"fit": "pad"}, {"channels": 1}, {"channels": 4}]
    first = [opened(data, **way).folder for way in ways]
    assert [opened(data, **way).folder for way in ways] == first
    assert len(set(first)) == len(ways)


def test_a_store_that_was_deleted_is_made_again() -> None:
    data = make("zip")
    first = opened(data)
    pixels = contents(first)
    shutil.rmtree(first.folder)
    assert contents(opened(data)) == pixels


def test_the_signature_of_a_folder_does_not_depend_on_the_order_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    root = make("folder").absolute()
    first, entries = folder.folder_signature(root), folder._entries
    monkeypatch.setattr(folder, "_entries", lambda path: iter(list(entries(path))[::-1]))
    assert folder.folder_signature(root) == first


def test_a_new_notice_is_told(notices) -> None:
    data = make("folder")
    opened(data)
    (data / "notes.txt").touch()
    opened(data)
    assert "1 other file: .txt 1." in notices.messages[-1]


def test_what_cannot_be_opened_is_an_error_every_time(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"no archive")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"photos\.zip is not a readable"):
            open_store(DataConfig(str(tmp_path / "photos.zip")))
    with pytest.raises(FileNotFoundError, match="There is no data at"):
        open_store(DataConfig(str(tmp_path / "nothing")))
