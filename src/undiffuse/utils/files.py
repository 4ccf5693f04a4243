"""Writing so that a crash at any instruction leaves either the old file or the new one, never half of one."""

import glob
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"
"""How the names of files and folders begin while they are being written."""


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Generator[Path, None, None]:
    """Gives a temporary path beside `path` to write a file or folder to, and renames it to `path` on success.

    With `durable` the content reaches the disk before the name does, so that this holds through a power cut too;
    without, thousands of small files are quicker. An existing file is replaced; an existing folder is not, unless it is
    empty: then OSError is raised, as for anything else that goes wrong, and nothing is left behind.
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


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a small file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def remove(path: Path) -> None:
    """Removes a file or folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes left half-written in `folder`, all or what would have become `name`.

    Only for who knows that nobody is writing there.
    """
    for left in folder.glob(f"{UNFINISHED}*" if name is None else f"{UNFINISHED}*-{glob.escape(name)}"):
        remove(left)


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and its rename needs no such call.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
