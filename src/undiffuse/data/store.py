"""Decoded images as one uint8 array on disk, read in batches: a million images cost disk, not memory."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pydantic
from filelock import FileLock
from jaxtyping import Int, UInt8
from PIL import UnidentifiedImageError
from pydantic import Field

from undiffuse.data.decoding import decode
from undiffuse.data.open import open_source
from undiffuse.data.originals import Original, original
from undiffuse.data.paths import printable
from undiffuse.data.source import Image, Source
from undiffuse.data.survey import Survey, survey
from undiffuse.utils.errors import Skipped
from undiffuse.utils.files import atomic_path, remove_unfinished, write_atomically
from undiffuse.utils.names import Fit, Split
from undiffuse.utils.terminal import log, track
from undiffuse.utils.text import plural, size_text
from undiffuse.utils.validation import STRICT

FORMAT = 2
"""Version of the decoder: raise it when the same images would be decoded differently."""

FILES = 3
"""Version of the files in the cache: raise it when a store or survey is written differently."""

SKIPPED_SHOWN = 20
"""Up to this many bad images are named one by one."""

Side = Annotated[int, Field(ge=4, le=4096)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Which images, and how they are decoded."""

    data: str = "digits"
    """digits, cifar10, flowers102, a folder, or a .zip or .tar of images. "sequence:..." stands for images that were
    passed as Python objects, and cannot be opened by this name."""
    data_root: str | None = None
    """Where cifar10 and flowers102 are, or are downloaded to; the folder data/ by default."""
    split: Split = "auto"
    size: tuple[Side, Side] | None = None
    """Height and width; by default the images' own if they share one up to 64, otherwise 64x64."""
    fit: Fit = "crop"
    channels: Literal[1, 3, 4] | None = None
    """1 gray, 3 RGB, 4 RGBA; by default what the images have."""


@dataclass(frozen=True)
class Store:
    """Decoded images on disk. Cheap to open and to keep: pixels are read only when requested."""

    folder: Path
    name: str
    split: str
    content: str
    """A digest of the source's images, the same wherever they are."""
    total_images: int
    size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """The name of each image that could not be decoded, and the reason."""

    def __len__(self) -> int:
        return self.total_images

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.channels, *self.size

    def read(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "b h w c"]:
        """The pixels of the images with these indices."""
        # Mapped again each time: otherwise all pages that were ever read would count as this process's memory.
        shape = (self.total_images, *self.size, self.channels)
        return np.memmap(self.folder / "pixels.u8", np.uint8, "r", shape=shape)[np.asarray(indices)]

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """The class index of each image; -1 without classes."""
        return np.fromfile(self.folder / "labels.i32", "<i4").astype(np.int64)

    def originals(self) -> Iterator[Original]:
        """What each image was like before it was decoded, in order."""
        with open(self.folder / "originals.jsonl", encoding="utf-8") as lines:
            for line in lines:
                yield Original(*json.loads(line))

    def originals_of(self, indices: Iterable[int]) -> dict[int, Original]:
        """What the images with these indices were like before they were decoded, by index."""
        chosen = set(indices)
        return {i: original for i, original in enumerate(self.originals()) if i in chosen}

    @property
    def names(self) -> list[str]:
        """The name of each image inside its source."""
        return [original.name for original in self.originals()]


def cache_folder() -> Path:
    """Where decoded images are kept: $UNDIFFUSE_CACHE, or undiffuse/ in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "undiffuse"
    return Path(os.environ.get("UNDIFFUSE_CACHE") or default)


def open_store(config: DataConfig, strict: bool = False) -> Store:
    """The decoded images, from the cache if the same images have been decoded with the same options before.

    Raises:
        FileNotFoundError, ValueError: see `open_source`; or no image can be decoded, or with `strict`, one cannot.
    """
    return store_of(open_source(config.data, config.data_root, config.split), config, strict)


def store_of(source: Source, config: DataConfig, strict: bool = False) -> Store:
    """Like `open_store`, for a source that is already open."""
    for notice in source.notices:
        log.info(notice)
    cache = cache_folder()
    content = _content(source, cache)
    size, channels = config.size, config.channels
    if size is None or channels is None:
        seen = _surveyed(source, cache / f"survey-{FILES}-{content}.json")
        size, channels = size or seen.size, channels or seen.channels
    options = [FORMAT, FILES, source.name, content, source.split, source.class_names, size, config.fit, channels]
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:20]
    folder = cache / f"{source.name}-{size_text(size)}x{channels}-{key}"
    if not folder.exists():
        with FileLock(f"{folder}.lock"):  # Another process may be decoding the same images: wait for it.
            if not folder.exists():
                remove_unfinished(cache, folder.name)
                _build(source, content, size, config.fit, channels, folder, strict)
    store = _load(folder)
    if store.skipped and strict:
        raise _cannot_decode(*store.skipped[0], source.where)
    _log_skipped(store)
    return store


def _log_skipped(store: Store) -> None:
    if not store.skipped:
        return
    log.warning(f"Left out {plural(len(store.skipped), 'image')} that cannot be decoded (--strict fails instead):")
    for name, reason in store.skipped[:SKIPPED_SHOWN]:
        log.warning(f"  {name}: {reason}")
    if len(store.skipped) > SKIPPED_SHOWN:
        log.warning(f"  and {len(store.skipped) - SKIPPED_SHOWN:,} more, all listed in {store.folder / 'store.json'}")


def _content(source: Source, cache: Path) -> str:
    """The digest of the images. Files that have not changed since they were last read are not read again."""
    if source.signature is None:
        return source.content()
    known = cache / f"content-{source.signature()}.txt"
    if not known.exists():
        write_atomically(known, source.content())
    return known.read_text()


def _surveyed(source: Source, file: Path) -> Survey:
    if not file.exists():
        write_atomically(file, json.dumps(asdict(survey(source))))
    return Survey(**json.loads(file.read_text(encoding="utf-8")))


def _build(
    source: Source, content: str, size: tuple[int, int], fit: Fit, channels: int, folder: Path, strict: bool
) -> None:
    total_images, skipped = 0, []
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        with (
            open(temporary / "pixels.u8", "wb") as pixels,
            open(temporary / "labels.i32", "wb") as labels,
            open(temporary / "originals.jsonl", "w", encoding="utf-8") as originals,
        ):
            for image, result in _decoded(source, size, fit, channels):
                if isinstance(result, Skipped):
                    skipped.append((image.name, result.reason))
                    if strict:
                        raise _cannot_decode(image.name, result.reason, source.where)
                    continue
                pixels.write(result.pixels.tobytes())
                labels.write(np.int32(image.label).astype("<i4").tobytes())
                originals.write(json.dumps(result.original) + "\n")
                total_images += 1
        if not total_images:
            first = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
            raise ValueError(
                f"None of the {len(skipped):,} images in {source.where} can be decoded ({first}): "
                "give JPEG or PNG files that other programs can open."
            )
        about = {
            "name": source.name,
            "split": source.split,
            "content": content,
            "total_images": total_images,
            "size": size,
            "channels": channels,
            "class_names": source.class_names,
            "skipped": skipped,
        }
        (temporary / "store.json").write_text(json.dumps(about), encoding="utf-8")


def _load(folder: Path) -> Store:
    about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    skipped = tuple((name, reason) for name, reason in about.pop("skipped"))
    size, class_names = tuple(about.pop("size")), tuple(about.pop("class_names"))
    return Store(folder=folder, size=size, class_names=class_names, skipped=skipped, **about)


@dataclass(frozen=True)
class _Decoded:
    original: Original
    pixels: UInt8[np.ndarray, "h w c"]


def _decoded(
    source: Source, size: tuple[int, int], fit: Fit, channels: int
) -> Iterator[tuple[Image, _Decoded | Skipped]]:
    """Every image in order, with its pixels or the reason why it has none. A few are decoded at once."""
    threads = os.cpu_count() or 1

    def attempt(image: Image) -> _Decoded | Skipped:
        try:
            with image.open() as opened:
                return _Decoded(original(image, opened), decode(opened, size, fit, channels))
        except Exception as error:  # Hostile bytes make Pillow raise nearly anything; one bad file must not end it all.
            return Skipped(_reason(error))

    waiting: deque[tuple[Image, Future[_Decoded | Skipped]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for image in track(source.images(), "decoding images", source.total_images):
            waiting.append((image, pool.submit(attempt, image)))
            if len(waiting) > 4 * threads:  # Decoded images wait in memory, so only a few may.
                first, future = waiting.popleft()
                yield first, future.result()
        for image, future in waiting:
            yield image, future.result()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a broken link, or a file that no longer exists"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, despite its name"
    return printable(str(error)).strip() or type(error).__name__


def _cannot_decode(name: str, reason: str, where: str) -> ValueError:
    return ValueError(f"{name} in {where} cannot be decoded ({reason}): repair or remove it, or leave --strict out.")
