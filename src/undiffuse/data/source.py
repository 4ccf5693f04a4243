"""Where images come from: one word on the command line becomes a Source to iterate over, once.

A source knows the images' names and labels and opens them one by one; it keeps none of them in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from undiffuse.utils.names import DATASETS, Split

NO_CLASS = -1


@dataclass(frozen=True)
class SourceImage:
    """One image that can be opened; opening may fail, and may be done in another thread."""

    name: str
    """Its path inside the source, or its number."""
    label: int
    """Index in the source's `class_names`, -1 where there are none."""
    open: Callable[[], Image.Image]
    split: str = ""
    """train, val or test; empty where the source has no splits."""


@dataclass(frozen=True)
class Source:
    name: str
    """Short and fit for a folder's name."""
    split: str
    class_names: tuple[str, ...]
    total_images: int
    """How many `images()` will yield; some may turn out not to open."""
    images: Callable[[], Iterator[SourceImage]]
    content: Callable[[], str]
    """A digest of all that the images are made of: equal digests, equal images and labels."""
    signature: Callable[[], str] | None = None
    """Where `content` is slow: a digest of the files' names, sizes and times, which changes whenever a file does."""
    where: str = ""
    """What a message calls it: the absolute path of a folder or archive, or the name of a dataset."""
    said: tuple[str, ...] = ()
    """Choices made for the user that the user should hear of, one sentence each."""


def open_source(data: str, data_root: str | None = None, split: Split = "auto") -> Source:
    """The source that `--data` names: `digits`, `cifar10`, `flowers102`, a folder, or a .zip or .tar of images.

    Raises:
        FileNotFoundError: there is nothing of that name, or a dataset is not on this machine and cannot be downloaded.
        ValueError: no images in it, no such split in it, or an archive that is none.
    """
    check_data(data)
    if data in DATASETS:
        from undiffuse.data.readers import (
            builtin as named,  # Imported when needed: torchvision's datasets take seconds.
        )

        return named.NAMED[data](Path(data_root or "data").expanduser(), split)
    from undiffuse.data.readers import archive as archives  # Here, because both import this module.
    from undiffuse.data.readers import folder as folders

    path = Path(data).expanduser()
    if path.is_dir():
        return folders.folder_source(path, split)
    return archives.archive_source(path, split)


def check_data(data: str) -> None:
    """Raises FileNotFoundError if there is nothing that `--data` could mean."""
    path = Path(data).expanduser()
    if data not in DATASETS and not path.exists():
        raise FileNotFoundError(
            f"There is no data at {path.absolute()}: give a folder, a .zip or .tar of images, or one of "
            f"{', '.join(DATASETS)}."
        )
