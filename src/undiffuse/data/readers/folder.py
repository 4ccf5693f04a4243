"""A folder of images: searched recursively, each image taken once, whatever its suffix's case and wherever links go."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from undiffuse.data.image_files import MAX_IMAGE_BYTES, open_image_file
from undiffuse.data.paths import Layout, folder_name, is_hidden, is_image, left_out, printable, read_layout, suffix_of
from undiffuse.data.source import Image, Source
from undiffuse.utils.limits import scaled
from undiffuse.utils.names import Split
from undiffuse.utils.terminal import track


def folder_source(root: Path, split: Split = "auto") -> Source:
    """The images in `root` and below; subfolders are classes.

    Raises:
        ValueError: there are no images, or no such split.
    """
    root = root.absolute()
    where = printable(str(root))
    found, other_files = _scan(root)
    if not found:
        others = f" ({left_out(other_files)})" if other_files else ""
        raise ValueError(f"{where} contains no images{others}: give a folder with JPEG or PNG files.")
    layout = read_layout(found, split, where)
    notices = list(layout.notices)
    if other_files:
        notices.append(f"Ignored in {where}: {left_out(other_files)}.")
    if len(layout.names) == 1:
        notices.append("There is only one image: the model can only memorize it.")
    return files_source(folder_name(root.name), root, replace(layout, notices=tuple(notices)))


def files_source(name: str, root: Path, layout: Layout) -> Source:
    """Image files whose names are paths relative to `root`."""

    def images(start: int = 0, stop: int | None = None, /) -> Iterator[Image]:
        for path, label, split in layout.rows(start, stop):
            yield Image(printable(path), label, partial(open_image_file, root / path), split)

    return Source(
        name=name,
        split=layout.split,
        class_names=layout.class_names,
        total_images=len(layout.names),
        images=images,
        content=partial(_content, root, layout),
        signature=lambda: f"{folder_signature(root)}-{layout.split}",
        where=printable(str(root.absolute())),
        notices=layout.notices,
    )


def folder_signature(root: Path) -> str:
    """A digest of the names, sizes and times of all files in `root` and below, which keeps none of them in memory.

    What it cannot see: a file whose content was changed below the file system, while the system's clock was set back,
    or within the clock's tick (some milliseconds; up to two seconds on FAT) after it was read here.
    """
    total = 0
    for path, _, status in _walk(root):
        # The change time too, because the modification time can be set back.
        of_file = status and (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        total += int.from_bytes(hashlib.sha256(f"{os.fsencode(path)!r} {of_file}".encode()).digest(), "big")
    # A sum of digests does not depend on the order in which the system lists files (Bellare & Micciancio 1997).
    return hashlib.sha256(f"{os.fsencode(root)!r} {total}".encode()).hexdigest()


def _scan(root: Path) -> tuple[list[str], Counter[str]]:
    """Relative paths of the images, sorted, and how many other files there are by suffix.

    Each file is taken once: under its own name if that is below `root`, otherwise under the name of the first link.
    """
    files: list[tuple[bool, str, tuple[int, int]]] = []
    other_files: Counter[str] = Counter()
    for path, through_link, status in _walk(root):
        if not is_image(path) or (status and not stat.S_ISREG(status.st_mode)):
            other_files[suffix_of(path)] += 1  # A pipe is not an image either, and opening it would block forever.
        else:
            # A broken link has no identity. It is kept, so that opening it fails and its name is reported.
            files.append((through_link, path, (status.st_dev, status.st_ino) if status else (-1, len(files))))
    taken = {}
    for _, path, identity in sorted(files):
        taken.setdefault(identity, path)
    return sorted(taken.values()), other_files


def _walk(root: Path) -> Iterator[tuple[str, bool, os.stat_result | None]]:
    """The path of every file relative to `root`, whether a link leads there, and its status as `_status` has it.

    Links are followed. Each folder is entered once: under its own name if that is below `root`, otherwise under the
    name of the first link. Hidden folders are skipped.
    """
    seen: set[tuple[int, int]] = set()
    # Real folders come before linked ones: a folder that is reached both ways keeps its own name.
    real, linked = [""], []
    while real or linked:
        in_link, inside = (False, real.pop()) if real else (True, linked.pop())
        status = _status(f"{root}/{inside}")
        if status is None or (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        folders = []
        for entry in _entries(root / inside):
            through_link, status = in_link or entry.is_symlink(), _status(entry.path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                yield inside + entry.name, through_link, status
            elif not is_hidden(entry.name):
                folders.append((through_link, f"{inside}{entry.name}/"))
        for through_link, folder in sorted(folders):
            (linked if through_link else real).append(folder)


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except PermissionError as error:
        raise ValueError(f"The folder {folder} cannot be read: change its permissions or move it elsewhere.") from error


def _status(path: str) -> os.stat_result | None:
    """The status of what all links lead to; None if they are broken or circular."""
    try:
        return os.stat(path)  # noqa: PTH116  Ten times as fast as Path.stat.
    except OSError:
        return None


def _content(root: Path, layout: Layout) -> str:
    digest = hashlib.sha256()
    labeled = zip(layout.names, layout.labels, strict=True)
    for path, label in track(labeled, "reading files", len(layout.names)):
        try:
            with open(root / path, "rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(0)
                # A file that is too long for an image is refused, so what it holds does not matter.
                is_read = length <= scaled(MAX_IMAGE_BYTES)
                of_file = hashlib.file_digest(file, "sha256").hexdigest() if is_read else f"{length} bytes"
        except OSError:
            of_file = "unreadable"
        digest.update(f"{os.fsencode(path)!r} {label} {of_file}\n".encode())
    return digest.hexdigest()
