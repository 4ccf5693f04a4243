"""What `data` and the paths of images mean: datasets, splits, classes, and which files are images. Loads no torch."""

import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeGuard, runtime_checkable
from urllib.parse import urlsplit

from undiffuse.data.source import NO_CLASS
from undiffuse.utils.names import Split
from undiffuse.utils.parsing import parse_low_res
from undiffuse.utils.text import listed, plural, printable

DATASETS = {
    "digits": "1,797 handwritten digits that come with scikit-learn, 8x8 gray",
    "cifar10": "60,000 photos in 10 classes, 32x32",
    "flowers102": "8,189 photos of 102 kinds of flowers",
}
"""Datasets known by name. Each has a reader of the same name in `readers.builtin`."""


REMOTE = {"http": "", "https": "", "s3": "s3fs", "gs": "gcsfs"}
"""How addresses of remote images begin, and the package that reads them besides those of undiffuse[remote]."""


@runtime_checkable
class ImageSequence(Protocol):
    """Images, or (image, label) pairs, by index: see `readers.sequence`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


DataLike = str | Path | ImageSequence
"""A dataset by name, a folder, an archive, or a sequence of images or of (image, label) pairs."""

SEQUENCE = "sequence:"
"""How the name of a sequence begins in a run's config.json."""

SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)

PHOTO_SUFFIXES = frozenset([".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw"])
"""Photos as phones and cameras store them, which are not read here."""

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2")

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders that are splits, in lower case."""

UNSORTED = "unsorted"
"""The class of images that are in no class folder, although others are."""

UNNAMED_TYPES = ("list", "tuple", "ndarray", "Tensor")
"""Types whose names say nothing about the images inside."""


MOST_TABLE_BYTES = 512 * 2**20

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


def is_remote(data: DataLike) -> TypeGuard[str]:
    """Whether it is the address of an archive or a folder elsewhere."""
    return isinstance(data, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", data) is not None


def cache_folder() -> Path:
    """Where decoded images are kept: $UNDIFFUSE_CACHE, or undiffuse/ in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "undiffuse"
    return Path(os.environ.get("UNDIFFUSE_CACHE") or default)


def is_table(condition: str | Path) -> bool:
    """Whether a condition is a table, and not other images."""
    return Path(condition).suffix.lower() in TABLE_SUFFIXES and not is_remote(str(condition))


def check_condition(condition: str) -> None:
    """Raises FileNotFoundError or ValueError where --condition names nothing that can be."""
    if is_table(condition):
        check_table(Path(condition).expanduser())
    elif parse_low_res(condition) is None:
        check_other_images(condition)


def check_other_images(condition: str) -> None:
    """Raises FileNotFoundError or ValueError where --condition names no images."""
    try:
        check_data(condition)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--condition {Path(condition).expanduser().absolute()} is not there: give an image, a folder or archive "
            "of them, or, to train, low-res:4 or a table."
        ) from error


def check_table(path: Path) -> None:
    """Raises FileNotFoundError or ValueError if there is no such file, or it is too large for a table."""
    if not path.is_file():
        raise FileNotFoundError(f"--condition {path.absolute()} is not there: give a CSV file of numbers and words.")
    if path.stat().st_size > MOST_TABLE_BYTES:
        raise ValueError(
            f"{path.absolute()} is larger than {MOST_TABLE_BYTES // 2**20} MiB: leave out columns or rows."
        )


def check_data(data: DataLike) -> None:
    """Checks that `data` exists on this machine, or has an address that can be read; opens nothing.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: it is the name of a sequence, which only Python can pass, or such an address is not known.
    """
    if is_remote(data):
        if data.partition("://")[0].lower() not in REMOTE or "::" in data:
            known = ", ".join(f"{protocol}://" for protocol in REMOTE)
            raise ValueError(f"{printable(data)} cannot be read: give an address with {known}, or a path.")
        return
    if not isinstance(data, str | Path) or str(data) in DATASETS:
        return
    path = Path(data).expanduser()
    if path.exists():
        return
    if str(data).startswith(SEQUENCE):
        raise ValueError(
            f"{data} stands for images that were passed as Python objects: pass them again from Python "
            "(data or real), or give a folder of the same images."
        )
    raise FileNotFoundError(
        f"There is no data at {path.absolute()}: give a folder, a .zip or .tar of images, or one of "
        f"{', '.join(DATASETS)}."
    )


def source_name(data: DataLike) -> str:
    """A short name for the data, safe as the name of a folder. Opens nothing."""
    if not isinstance(data, str | Path):
        kind = type(data).__name__
        return "images" if kind in UNNAMED_TYPES else folder_name(kind)
    if str(data) in DATASETS:
        return str(data)
    path = Path(urlsplit(data).path) if is_remote(data) else Path(data).expanduser().absolute()
    if path.suffix.lower() not in ARCHIVE_SUFFIXES or (not is_remote(data) and path.is_dir()):
        return folder_name(path.name)
    return folder_name(path.name.removesuffix(path.suffix).removesuffix(".tar"))


def data_name(data: DataLike) -> str:
    """How config.json names the data: a dataset, an address, an absolute path, or "sequence:" and a type's name."""
    if not isinstance(data, str | Path):
        return f"{SEQUENCE}{type(data).__name__}"
    return str(data) if str(data) in DATASETS or is_remote(data) else str(Path(data).expanduser().absolute())


def folder_name(name: str) -> str:
    """The name made safe as part of a folder's name on any system, where names are limited to 255 bytes."""
    return re.sub(r"[^\w.-]+", "-", printable(name))[:48].strip("-.") or "images"


def is_image(path: str) -> bool:
    """Whether the name is that of an image. Hidden files, and those that macOS adds to archives, do not count."""
    # As PurePosixPath has them, but five times as fast: there may be a million.
    *folders, name = path.split("/")
    if os.path.splitext(name)[1].lower() not in SUFFIXES:  # noqa: PTH122
        return False
    return not is_hidden(name) and not any(is_hidden(part) for part in folders if part != ".")


def suffix_of(path: str) -> str:
    """What tells of which kind a file that is not an image is, in a few plain characters."""
    if any(is_hidden(part) for part in path.split("/") if part != "."):
        return "hidden"
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
    return suffix if 1 < len(suffix) <= 8 and suffix[1:].isalnum() else "others"


def left_out(suffixes: Counter[str]) -> str:
    """How many files are not images, of which kinds, and what to do about those that are photos nevertheless."""
    counts = dict(sorted(suffixes.items(), key=lambda each: (-each[1], each[0])))
    kinds = f"{plural(suffixes.total(), 'other file')}: {listed(counts)}"
    photos = [suffix for suffix in suffixes if suffix in PHOTO_SUFFIXES]
    return f"{kinds}; save photos in {' and '.join(sorted(photos))} as JPEG to have them" if photos else kinds


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


@dataclass(frozen=True)
class Layout:
    """The images of one split in order, with their labels."""

    split: str
    """train, val, test or all."""
    class_names: tuple[str, ...]
    names: Sequence[str]
    """The path of each image inside the source, or its number."""
    labels: Sequence[int]
    """The class index of each image; -1 without classes."""
    splits: Sequence[str]
    """train, val or test for each image; empty where there are no splits."""
    notices: tuple[str, ...] = ()
    """Choices made for the user, one sentence each."""

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, int, str]]:
        """Name, label and split of each image from one position to before another."""
        chosen = slice(start, stop)
        return zip(self.names[chosen], self.labels[chosen], self.splits[chosen], strict=True)


def read_layout(paths: Sequence[str], split: Split, where: str) -> Layout:
    """Reads splits and classes from relative paths with forward slashes.

    Folders that contain everything are ignored. If all folders at the next level have the name of a split (train, val,
    test), they are splits, and images outside of them are left out; otherwise the folders at the next level are the
    classes. `auto` takes train where it exists.

    Raises:
        ValueError: the requested split does not exist.
    """
    folders = without_common([PurePosixPath(path).parts[:-1] for path in paths], stop_at=SPLIT_NAMES)
    split_of = [SPLIT_NAMES.get(parts[0].lower()) if parts else "" for parts in folders]
    present = sorted({name for name in split_of if name})
    notices: tuple[str, ...] = ()
    if present and None not in split_of:
        taken, notices = _choose_split(split_of, present, split, where)
        chosen = [i for i, name in enumerate(split_of) if name and taken in (name, "all")]
        splits = [split_of[i] or "" for i in chosen]
        inside = [i for i, name in enumerate(split_of) if name]
        below = without_common([folders[i][1:] for i in inside])
        class_of = {i: parts[0] if parts else UNSORTED for i, parts in zip(inside, below, strict=True)}
    else:
        if split not in ("auto", "all"):
            raise ValueError(
                f"{where} has no folders named train, val or test, and so no split {split}: leave --split out."
            )
        taken, chosen, splits = "all", list(range(len(paths))), [""] * len(paths)
        class_of = {i: parts[0] if parts else UNSORTED for i, parts in enumerate(without_common(folders))}
    names = [paths[i] for i in chosen]
    # All folders of the source count, so that label 3 means the same in train and test.
    class_names = sorted(set(class_of.values()))
    if len(class_names) < 2:
        return Layout(taken, (), names, [NO_CLASS] * len(chosen), splits, notices)
    index = {name: i for i, name in enumerate(class_names)}
    labels = [index[class_of[i]] for i in chosen]
    return Layout(taken, tuple(map(printable, class_names)), names, labels, splits, notices)


def _choose_split(
    split_of: Sequence[str | None], present: Sequence[str], split: Split, where: str
) -> tuple[str, tuple[str, ...]]:
    """The split to take, and notices about it."""
    taken = split if split != "auto" else "train" if "train" in present else "all"
    if taken not in (*present, "all"):
        raise ValueError(f"{where} has no split {taken}: choose {', '.join(present)} or all.")
    notices = []
    if split == "auto" and len(present) > 1:
        notices.append(f"{where} has the splits {', '.join(present)}: using {taken} (--split all uses everything).")
    strays = sum(name == "" for name in split_of)
    if strays:
        images = "1 image is" if strays == 1 else f"{strays:,} images are"
        notices.append(f"{images} left out: not in any split's folder in {where}.")
    return taken, tuple(notices)


def without_common(folders: list[tuple[str, ...]], stop_at: Container[str] = ()) -> list[tuple[str, ...]]:
    """The folders without the leading ones that all share, up to the first that is in `stop_at`."""
    common = 0
    while (
        folders
        and all(len(parts) > common and parts[common] == folders[0][common] for parts in folders)
        and folders[0][common].lower() not in stop_at
    ):
        common += 1
    return [parts[common:] for parts in folders]
