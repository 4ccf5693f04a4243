"""A folder of images: found recursively, each once, whatever their suffix's case and however links point."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from undiffuse.data.paths import FORMATS, is_hidden, is_image, printable, read_names
from undiffuse.data.source import Source, SourceImage
from undiffuse.utils.names import Split
from undiffuse.utils.terminal import track


def folder_source(root: Path, split: Split = "auto") -> Source:
    """The images below `root`; its sub-folders are class names.

    Raises:
        ValueError: there are none, or the split is not there.
    """
    root = root.absolute()
    where = printable(str(root))
    found, other_files = _scan(root)
    if not found:
        raise ValueError(f"{where} holds no images ({other_files} other files): give a folder with JPEG or PNG files.")
    named = read_names(found, split, where)
    paths = [found[i] for i in named.chosen]
    labels, splits = list(named.labels), list(named.splits)
    said = list(named.said)
    if other_files:
        said.append(f"{other_files:,} files in {where} are no images by their names and were left alone.")
    if len(paths) == 1:
        said.append("There is one image only: the model can but learn it by heart.")
    return files_source(safe_name(root.name), named.split, named.class_names, root, paths, labels, splits, said)


def files_source(
    name: str,
    split: str,
    class_names: tuple[str, ...],
    root: Path,
    paths: list[str],
    labels: list[int],
    splits: list[str],
    said: list[str],
) -> Source:
    """A source of image files, given by their paths relative to `root`."""

    def images() -> Iterator[SourceImage]:
        for path, label, of_split in zip(paths, labels, splits, strict=True):
            yield SourceImage(printable(path), label, partial(Image.open, root / path, formats=FORMATS), of_split)

    return Source(
        name=name,
        split=split,
        class_names=class_names,
        total_images=len(paths),
        images=images,
        content=partial(_content, root, paths, labels),
        signature=partial(_signature, root, paths, labels),
        where=printable(str(root.absolute())),
        said=tuple(said),
    )


def safe_name(name: str) -> str:
    """The name fit for a part of a folder's on any system, where names may have 255 bytes."""
    return re.sub(r"[^\w.-]+", "-", printable(name))[:48].strip("-.") or "images"


def _scan(root: Path) -> tuple[list[str], int]:
    """Relative paths of the images, sorted, and how many other files there are.

    Links are followed, each folder and file is taken once: under its own name where it has one below `root`, else under
    the first link's. Hidden folders are passed by.
    """
    files: list[tuple[bool, str, tuple[int, int]]] = []
    other_files = 0
    folders_seen: set[tuple[int, int]] = set()
    # Real folders before linked ones: a folder that is reached both ways keeps its own name.
    waiting: list[tuple[bool, Path]] = [(False, root)]
    while waiting:
        waiting.sort(key=lambda item: item[0], reverse=True)
        linked, folder = waiting.pop()
        status = _status(folder)
        if status is None or (status.st_dev, status.st_ino) in folders_seen:
            continue
        folders_seen.add((status.st_dev, status.st_ino))
        for entry in _entries(folder):
            through_link = linked or entry.is_symlink()
            path = Path(entry.path)
            relative = path.relative_to(root).as_posix()
            status = _status(path)
            if status and stat.S_ISDIR(status.st_mode):
                if not is_hidden(entry.name):
                    waiting.append((through_link, path))
            elif not is_image(relative) or (status and not stat.S_ISREG(status.st_mode)):
                other_files += 1  # A pipe is no image either, and opening it would wait forever.
            else:
                # A broken link has no identity: it is kept, so that opening it will name it as bad.
                identity = (status.st_dev, status.st_ino) if status else (-1, len(files))
                files.append((through_link, relative, identity))
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


def _status(path: Path) -> os.stat_result | None:
    """What lies at the end of all links; None if they lead nowhere, or in a circle."""
    try:
        return path.stat()
    except OSError:
        return None


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
        status = _status(root / path)
        # The change time too: it cannot be set back, as the modification time can.
        of_file = status and (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(f"{os.fsencode(path)!r} {label} {of_file}\n".encode())
    return digest.hexdigest()
