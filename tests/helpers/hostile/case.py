"""What every kind of hostile input has in common."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import undiffuse.data.store
from helpers.making import noise, save
from undiffuse.data.store import DataConfig


@dataclass(frozen=True)
class Case:
    """An input, and what is to be said of it."""

    name: str
    make: Callable[[], object]
    """Makes it in the current folder."""
    read: Callable[[], str]
    """Reads it as a command does; returns what was said of it, or raises what a command would print."""
    sentence: str
    """A regular expression."""
    slow: bool = False

    def matches(self, sentence: str) -> bool:
        """Whether it is the sentence that is expected, on one line and without control characters."""
        return sentence.isprintable() and re.search(self.sentence, sentence) is not None


def photos(name: str, content: bytes | Callable[[Path], object], sentence: str, file: str, slow: bool = False) -> Case:
    """A folder with a good image and a hostile one, whose bytes are given, or a function that writes the file."""

    def make() -> None:
        save(Path("photos/good.png"), noise(0))
        path = Path("photos") / file
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)

    return Case(name, make, lambda: reading("photos"), sentence, slow)


def reading(data: str) -> str:
    """Opens images as `train` and `explore` do: what is said of those that are left out, or of all."""
    store = undiffuse.data.store.open_store(DataConfig(data))
    if store.skipped:
        return "; ".join(f"{name}: {reason}" for name, reason in store.skipped)
    return "read: " + ", ".join(f"{each.name} {each.format} {each.width}x{each.height}" for each in store.originals())
