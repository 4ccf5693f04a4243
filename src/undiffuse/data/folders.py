"""A folder of pictures: found recursively, each once, whatever their suffix's case and however links point."""

import hashlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from undiffuse.data.naming import FORMATS, is_picture, printable, read_names
from undiffuse.data.sources import Picture, Source
from undiffuse.names import Split
from undiffuse.terminal import track


def folder_source(root: Path, split: Split = "auto") -> Source:
    """The pictures below `root`; its sub-folders are class names.

    Raises:
        ValueError: there are none, or the split is not there.
    """
    root = root.absolute()
    found, other_files = _scan(root)
    if not found:
        raise ValueError(f"{root} holds no pictures ({other_files} other files): give a folder with JPEG or PNG files.")
    named = read_names(found, split, str(root))
    paths = [found[i] for i in named.chosen]
    said = list(named.said)
    if other_files:
        said.append(f"{other_files:,} files in {root} are no pictures by their names and were left alone.")
    if len(paths) == 1:
        said.append("There is one picture only: the model can but learn it by heart.")
    return files_source(safe_name(root.name), named.split, named.class_names, root, paths, list(named.labels), said)


def files_source(
    name: str,
    split: str,
    class_names: tuple[str, ...],
    root: Path,
    paths: list[str],
    labels: list[int],
    said: list[str],
) -> Source:
    """A source of image files, given by their paths relative to `root`."""

    def pictures() -> Iterator[Picture]:
        for path, label in zip(paths, labels, strict=True):
            yield Picture(printable(path), label, partial(Image.open, root / path, formats=FORMATS))

    return Source(
        name=name,
        split=split,
        class_names=class_names,
        total_pictures=len(paths),
        pictures=pictures,
        content=partial(_content, root, paths, labels),
        signature=partial(_signature, root, paths, labels),
        said=tuple(said),
    )


def safe_name(name: str) -> str:
    """The name fit for a folder's on any system."""
    return re.sub(r"[^\w.-]+", "-", printable(name)).strip("-.") or "pictures"


def _scan(root: Path) -> tuple[list[str], int]:
    """Relative paths of the pictures, sorted, and how many other files there are.

    Links are followed, each folder and file is taken once: under its own name where it has one below `root`, else under
    the first link's.
    """
    files: list[tuple[bool, str, tuple[int, int]]] = []
    other_files = 0
    folders_seen: set[tuple[int, int]] = set()
    # Real folders before linked ones: a folder that is reached both ways keeps its own name.
    waiting: list[tuple[bool, Path]] = [(False, root)]
    while waiting:
        waiting.sort(key=lambda item: item[0], reverse=True)
        linked, folder = waiting.pop()
        identity = _identity(folder)
        if identity is None or identity in folders_seen:
            continue
        folders_seen.add(identity)
        for entry in _entries(folder):
            through_link = linked or entry.is_symlink()
            relative = Path(entry.path).relative_to(root).as_posix()
            if entry.is_dir():
                waiting.append((through_link, Path(entry.path)))
            elif not is_picture(relative):
                other_files += 1
            else:
                # A broken link has no identity: it is kept, so that opening it will name it as bad.
                files.append((through_link, relative, _identity(Path(entry.path)) or (-1, len(files))))
    taken = {}
    for _, relative, identity in sorted(files):
        taken.setdefault(identity, relative)
    return sorted(taken.values()), other_files


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError as error:
        raise ValueError(f"The folder {folder} may not be read: change its permissions or leave it out.") from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _content(root: Path, paths: list[str], labels: list[int]) -> str:
    digest = hashlib.sha256()
    for path, label in track(zip(paths, labels, strict=True), "reading files", len(paths)):
        try:
            with open(root / path, "rb") as file:
                of_file = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            of_file = "unreadable"
        digest.update(f"{os.fsencode(path)!r} {label} {of_file}\n".encode())
    return digest.hexdigest()


def _signature(root: Path, paths: list[str], labels: list[int]) -> str:
    digest = hashlib.sha256(os.fsencode(root))
    for path, label in zip(paths, labels, strict=True):
        try:
            status = (root / path).stat()
            # The change time too: it cannot be set back, as the modification time can.
            of_file = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            of_file = None
        digest.update(f"{os.fsencode(path)!r} {label} {of_file}\n".encode())
    return digest.hexdigest()
