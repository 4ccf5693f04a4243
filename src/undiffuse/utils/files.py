"""Atomic writes: a crash at any instruction leaves the old file or the new one, never half of one."""

import glob
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"
"""The prefix of files and folders that are still being written."""


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Generator[Path, None, None]:
    """Gives a temporary path in the same folder for a new file or folder, and renames it to `path` on success.

    With `durable`, the content reaches the disk before the name does, so that even a power failure does no harm;
    without it, writing thousands of small files is faster. An existing file is replaced, and so is an empty folder.

    Raises:
        OSError: `path` is a folder with something in it, or writing failed. Nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        if durable:
            for written in [*temporary.rglob("*"), temporary]:
                _fsync(written)
        temporary.replace(path)
        if durable:
            _fsync(path.parent)
    finally:
        remove(temporary)


def check_writable(folder: Path) -> None:
    """Makes the folder, and raises ValueError where files cannot be written there."""
    try:
        write_atomically(folder / "writable", "")
        remove(folder / "writable")
    except OSError as error:
        raise ValueError(f"{folder.absolute()} cannot be written to ({error.strerror}): copy the run first.") from error


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a small file completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


MOST_RECORD_BYTES = 32 * 2**20
"""Of a file that says how images or weights were made: more than undiffuse ever writes into one."""


def read_small(file: Path, most: int = MOST_RECORD_BYTES) -> str:
    """The text in a file that may come from anywhere.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most` bytes, or not UTF-8.
    """
    with open(file, "rb") as opened:
        content = opened.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is longer than {most:,} bytes")
    return content.decode()


def remove(path: Path) -> None:
    """Removes a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes left unfinished in `folder`: everything, or what would have become `name`.

    Call it only when no other process can be writing there.
    """
    for leftover in folder.glob(f"{UNFINISHED}*" if name is None else f"{UNFINISHED}*-{glob.escape(name)}"):
        remove(leftover)


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and its rename does not need this.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
