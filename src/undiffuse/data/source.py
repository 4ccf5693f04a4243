"""What every reader makes: a Source, which knows the names and labels of its images and opens them one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import PIL.Image

NO_CLASS = -1


@dataclass(frozen=True)
class Image:
    """An image that can be opened. Opening it may fail, and may happen in another thread."""

    name: str
    """Its path inside the source, or its number."""
    label: int
    """Index in the source's `class_names`; -1 where there are none."""
    open: Callable[[], PIL.Image.Image]
    split: str = ""
    """train, val or test; empty where the source has no splits."""
    held_bytes: int = 0
    """Of memory that it takes until it is dropped: the content of its file, if that was read already."""


@runtime_checkable
class Images(Protocol):
    """The images of a source from one position to before another, by default all, always in the same order."""

    def __call__(self, start: int = 0, stop: int | None = None, /) -> Iterator[Image]: ...


@dataclass(frozen=True)
class Source:
    """Images to iterate over, none of which is kept in memory."""

    name: str
    """Short, and safe as the name of a folder."""
    split: str
    """train, val, test or all."""
    class_names: tuple[str, ...]
    total_images: int
    """How many images `images()` yields; some of them may not open."""
    images: Images
    content: Callable[[], str]
    """A digest of everything that the images are made of: equal digests mean equal images and labels."""
    signature: Callable[[], str] | None = None
    """Where `content` is slow: a digest of the files' names, sizes and times, which changes when a file does."""
    where: str = ""
    """How messages refer to it: the absolute path of a folder or archive, or the name of a dataset."""
    notices: tuple[str, ...] = ()
    """Choices made for the user that the user should know about, one sentence each."""
