import os
import random
import signal
import time
from pathlib import Path

import pytest
from helpers.making import start_python

from undiffuse.utils.files import UNFINISHED, atomic_path, remove, remove_unfinished, write_atomically


def test_a_file_is_written_and_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "note.txt"
    write_atomically(file, "grüß")
    assert file.read_text(encoding="utf-8") == "grüß"
    write_atomically(file, b"\x00\xff")
    assert file.read_bytes() == b"\x00\xff"
    assert list(file.parent.iterdir()) == [file]


def test_the_old_file_stays_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "note"
    file.write_text("old")
    with atomic_path(file) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(UNFINISHED)
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_only_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "note"
    file.write_text("old")
    with pytest.raises(error), atomic_path(file) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_exception_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError), atomic_path(tmp_path / "folder") as temporary:  # noqa: PT012
        (temporary / "sub").mkdir(parents=True)
        (temporary / "sub" / "half").write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_its_contents_appear_at_once(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "folder") as temporary:
        (temporary / "sub").mkdir(parents=True)
        (temporary / "sub" / "file").write_text("whole")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "sub" / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("new_is_folder", [False, True])
def test_an_existing_folder_is_kept(tmp_path: Path, new_is_folder: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "precious").write_text("here")
    with pytest.raises(OSError), atomic_path(folder) as temporary:  # noqa: PT012
        if new_is_folder:
            temporary.mkdir()
        else:
            temporary.write_text("new")
    assert (folder / "precious").read_text() == "here"
    assert list(tmp_path.iterdir()) == [folder]


def test_writing_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "note"
    file.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(file):
        pass
    assert file.read_text() == "old"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_the_content_reaches_the_disk_before_the_name_does(tmp_path: Path, monkeypatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").resolve().name.rpartition("-")[2])
        fsync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        events.append("renamed")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("content")
    assert events[:3] == ["file", "folder", "renamed"]
    assert events[3:] == [tmp_path.name.rpartition("-")[2]]

    events.clear()
    with atomic_path(tmp_path / "other", durable=False) as temporary:
        temporary.write_text("content")
    assert events == ["renamed"]


def test_all_leftovers_or_those_of_one_name_are_removed(tmp_path: Path) -> None:
    for name in ("a[1]", "a1", "b"):
        (tmp_path / f"{UNFINISHED}01234567-{name}").mkdir()
    (tmp_path / f"{UNFINISHED}89abcdef-b" / "half").parent.mkdir()
    (tmp_path / f"{UNFINISHED}89abcdef-b" / "half").write_text("half")
    (tmp_path / "kept").write_text("whole")
    remove_unfinished(tmp_path, "a[1]")
    assert sorted(path.name[-4:] for path in tmp_path.iterdir()) == ["67-b", "7-a1", "ef-b", "kept"]
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_removing_a_link_keeps_its_target(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("here")
    (tmp_path / "link").symlink_to(folder)
    remove(tmp_path / "link")
    assert (folder / "file").read_text() == "here"
    remove(folder)
    remove(folder)
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from undiffuse.utils.files import atomic_path, write_atomically

folder = Path(sys.argv[1])
for version in range(1, 5000):  # Until it is killed.
    write_atomically(folder / "file", bytes([version % 256]) * 300_000)
    with atomic_path(folder / f"folder-{version}", durable=False) as temporary:
        temporary.mkdir()
        for part in range(3):
            (temporary / str(part)).write_bytes(bytes([version % 256]) * 50_000)
"""


def test_a_kill_at_any_moment_leaves_no_half_file_or_folder(tmp_path: Path) -> None:
    rng = random.Random(0)
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = start_python(WRITER, folder)
        while not (folder / "folder-1").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it must be killed while it writes"
        content = (folder / "file").read_bytes()
        assert content == content[:1] * 300_000
        for written in folder.glob("folder-*"):
            whole = bytes([int(written.name.partition("-")[2]) % 256]) * 50_000
            assert [(written / str(part)).read_bytes() for part in range(3)] == [whole] * 3
        remove_unfinished(folder)
        assert not list(folder.glob(f"{UNFINISHED}*"))
