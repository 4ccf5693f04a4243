"""What the paths of images mean: splits, class names, and which files are images at all."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from undiffuse.data.source import NO_CLASS
from undiffuse.utils.names import Split

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The Pillow formats that are opened. Others run programs (EPS), or are too rare to be anybody's photos."""

SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

UNSORTED = "unsorted"
"""The class of images that lie beside the class folders rather than in one."""


def is_image(path: str) -> bool:
    """Whether the name is an image's. Hidden files, and what macOS adds to archives, are none."""
    hidden = any(is_hidden(part) for part in PurePosixPath(path).parts)
    return not hidden and PurePosixPath(path).suffix.lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


@dataclass(frozen=True)
class Named:
    """The images of one split, with what their paths say."""

    split: str
    chosen: tuple[int, ...]
    """Positions in the list of paths that was given."""
    labels: tuple[int, ...]
    splits: tuple[str, ...]
    """train, val or test for each of the chosen; empty where the paths name no splits."""
    class_names: tuple[str, ...]
    said: tuple[str, ...]


def read_names(paths: Sequence[str], split: Split, where: str) -> Named:
    """Reads splits and classes from relative paths with forward slashes.

    Folders that everything lies in say nothing. If all folders of the next level are named like splits (train, val,
    test), they are, and images beside them are left out; otherwise the next level's folders are the classes. `auto`
    takes train where there is one.

    Raises:
        ValueError: the split that was asked for is not there.
    """
    folders = _without_common([PurePosixPath(path).parts[:-1] for path in paths], stop_at=SPLIT_NAMES)
    split_of = [SPLIT_NAMES.get(parts[0].lower()) if parts else "" for parts in folders]
    present = sorted({name for name in split_of if name})
    said: list[str] = []
    if present and None not in split_of:
        taken, chosen = _choose_split(split_of, present, split, where, said)
        splits = tuple(split_of[i] or "" for i in chosen)
        inside = [i for i, name in enumerate(split_of) if name]
        below = _without_common([folders[i][1:] for i in inside])
        class_of = {i: parts[0] if parts else UNSORTED for i, parts in zip(inside, below, strict=True)}
    else:
        if split not in ("auto", "all"):
            raise ValueError(f"{where} has no folders named train, val or test, so --split {split} is not to be had.")
        taken, chosen = "all", list(range(len(paths)))
        splits = ("",) * len(paths)
        below = _without_common(folders)
        class_of = {i: parts[0] if parts else UNSORTED for i, parts in enumerate(below)}
    # All folders of the source count, so that train and test agree on what label 3 means.
    class_names = sorted(set(class_of.values()))
    if len(class_names) < 2:
        return Named(taken, tuple(chosen), (NO_CLASS,) * len(chosen), splits, (), tuple(said))
    index = {name: i for i, name in enumerate(class_names)}
    labels = tuple(index[class_of[i]] for i in chosen)
    return Named(taken, tuple(chosen), labels, splits, tuple(map(printable, class_names)), tuple(said))


def _choose_split(
    split_of: Sequence[str | None], present: Sequence[str], split: Split, where: str, said: list[str]
) -> tuple[str, list[int]]:
    """The split that is taken and the positions of its images."""
    taken = split if split != "auto" else "train" if "train" in present else "all"
    if taken not in (*present, "all"):
        raise ValueError(f"{where} has no split {taken}: choose {', '.join(present)} or all.")
    if split == "auto" and len(present) > 1:
        said.append(f"{where} is split in {', '.join(present)}: taking {taken} (--split all takes everything).")
    strays = sum(name == "" for name in split_of)
    if strays:
        said.append(f"{strays:,} images in {where} lie beside the folders of its splits and are left out.")
    return taken, [i for i, name in enumerate(split_of) if name and taken in (name, "all")]


def _without_common(folders: list[tuple[str, ...]], stop_at: Container[str] = ()) -> list[tuple[str, ...]]:
    """The folders without the first ones, as far as all share them and none of those is in `stop_at`."""
    common = 0
    while (
        folders
        and all(len(parts) > common and parts[common] == folders[0][common] for parts in folders)
        and folders[0][common].lower() not in stop_at
    ):
        common += 1
    return [parts[common:] for parts in folders]


def printable(name: str) -> str:
    """The name with bytes that are no text, and control characters, made visible."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
