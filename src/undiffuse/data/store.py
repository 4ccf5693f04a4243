"""The images decoded: one uint8 array on disk, read in batches: a million images cost disk, not memory."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Int, UInt8

from undiffuse.data.decoding import decode
from undiffuse.data.originals import Original, original
from undiffuse.data.paths import printable
from undiffuse.data.source import Source, SourceImage, open_source
from undiffuse.data.survey import Survey, survey
from undiffuse.utils.files import atomic_path, remove_unfinished, write_atomically
from undiffuse.utils.names import Fit, Split
from undiffuse.utils.terminal import log, track

FORMAT = 2
"""Part of every key: raise it when the same images would be decoded differently, or a store holds other files."""

SKIPPED_SHOWN = 20
"""Bad images are named one by one up to this many."""

SHORTEST_SIDE, LONGEST_SIDE = 4, 4096


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are decoded."""

    data: str = "digits"
    """digits, cifar10, flowers102, a folder, or a .zip or .tar of images."""
    data_root: str | None = None
    """Where cifar10 and flowers102 are, or are downloaded to; the folder data/ unless given."""
    split: Split = "auto"
    size: tuple[int, int] | None = None
    """Height and width; the images' own if they share one up to 64, else 64x64."""
    fit: Fit = "crop"
    channels: int | None = None
    """1, 3 or 4; what the images have unless given."""

    def __post_init__(self):
        if self.channels not in (None, 1, 3, 4):
            raise ValueError(f"{self.channels} channels are not to be had: choose 1 (gray), 3 (RGB) or 4 (RGBA).")
        if self.size is not None and not all(SHORTEST_SIDE <= side <= LONGEST_SIDE for side in self.size):
            raise ValueError(
                f"size {self.size[0]}x{self.size[1]} is out of range: sides go from {SHORTEST_SIDE} to {LONGEST_SIDE}."
            )


@dataclass(frozen=True)
class Store:
    """Decoded images on disk. Small to hold and cheap to open: pixels are read when they are asked for."""

    folder: Path
    name: str
    split: str
    content: str
    """A digest of the source's images: the same for the same images wherever they lie."""
    total_images: int
    size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """Name and reason of each image that could not be decoded."""

    def __len__(self) -> int:
        return self.total_images

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.channels, *self.size

    def read(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "b h w c"]:
        """The pixels of the images with these indices."""
        # Mapped anew each time: pages that were read would otherwise stay in this process's memory until all are.
        shape = (self.total_images, *self.size, self.channels)
        return np.memmap(self.folder / "pixels.u8", np.uint8, "r", shape=shape)[np.asarray(indices)]

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """The class index of each image, -1 without classes."""
        return np.fromfile(self.folder / "labels.i32", "<i4").astype(np.int64)

    def originals(self) -> Iterator[Original]:
        """What each image was before it was decoded, in order."""
        with open(self.folder / "originals.jsonl", encoding="utf-8") as lines:
            for line in lines:
                yield Original(*json.loads(line))

    def originals_of(self, indices: Iterable[int]) -> dict[int, Original]:
        """What the images with these indices were, by index."""
        wanted = set(indices)
        return {i: original for i, original in enumerate(self.originals()) if i in wanted}

    @property
    def names(self) -> list[str]:
        """The name of each image inside its source."""
        return [original.name for original in self.originals()]


def cache_folder() -> Path:
    """Where decoded images are kept: $UNDIFFUSE_CACHE, or undiffuse/ in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "undiffuse"
    return Path(os.environ.get("UNDIFFUSE_CACHE") or default)


def open_store(config: DataConfig, strict: bool = False) -> Store:
    """The decoded images, from the cache if the same images were decoded with the same options before.

    Raises:
        FileNotFoundError, ValueError: see `open_source`; no image could be decoded; with `strict`, one could not.
    """
    return store_of(open_source(config.data, config.data_root, config.split), config, strict)


def store_of(source: Source, config: DataConfig, strict: bool = False) -> Store:
    """As `open_store`, for a source that is open already."""
    for sentence in source.said:
        log.info(sentence)
    cache = cache_folder()
    content = _content(source, cache)
    size, channels = config.size, config.channels
    if size is None or channels is None:
        seen = _surveyed(source, cache / f"survey-{content}.json")
        size, channels = size or seen.size, channels or seen.channels
    options = [FORMAT, source.name, content, source.split, source.class_names, size, config.fit, channels]
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:20]
    folder = cache / f"{source.name}-{size[0]}x{size[1]}x{channels}-{key}"
    if not folder.exists():
        with FileLock(f"{folder}.lock"):  # Another process may be decoding the same images: wait for it.
            if not folder.exists():
                remove_unfinished(cache, folder.name)
                _build(source, content, size, config.fit, channels, folder, strict)
    store = _load(folder)
    if store.skipped and strict:
        raise _cannot_decode(*store.skipped[0], source.where)
    if store.skipped:
        log.info(f"{len(store.skipped):,} images cannot be decoded and are left out (--strict fails instead):")
        for name, reason in store.skipped[:SKIPPED_SHOWN]:
            log.info(f"  {name}: {reason}")
        if len(store.skipped) > SKIPPED_SHOWN:
            log.info(f"  and {len(store.skipped) - SKIPPED_SHOWN:,} more, all named in {folder / 'store.json'}")
    return store


def _content(source: Source, cache: Path) -> str:
    """The digest of the images; files that have not changed since they were last read are not read again."""
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
            for image, decoded in _decoded(source, size, fit, channels):
                if isinstance(decoded, str):
                    skipped.append((image.name, decoded))
                    if strict:
                        raise _cannot_decode(*skipped[0], source.where)
                    continue
                about_original, of_image = decoded
                pixels.write(of_image.tobytes())
                labels.write(np.int32(image.label).astype("<i4").tobytes())
                originals.write(json.dumps(about_original) + "\n")
                total_images += 1
        if not total_images:
            first = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
            raise ValueError(
                f"None of the {len(skipped)} images in {source.where} could be decoded ({first}): "
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


def _decoded(
    source: Source, size: tuple[int, int], fit: Fit, channels: int
) -> Iterator[tuple[SourceImage, tuple[Original, np.ndarray] | str]]:
    """Every image in order with its pixels, or with the reason why it has none; a few are decoded at once."""
    threads = os.cpu_count() or 1

    def attempt(image: SourceImage) -> tuple[Original, np.ndarray] | str:
        try:
            with image.open() as opened:
                return original(image, opened), decode(opened, size, fit, channels)
        except (
            Exception
        ) as error:  # Hostile bytes make Pillow raise nearly anything; one bad file must not end the run.
            return _reason(error)

    waiting: deque[tuple[SourceImage, Future]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for image in track(source.images(), "decoding images", source.total_images):
            waiting.append((image, pool.submit(attempt, image)))
            if len(waiting) > 4 * threads:  # Decoded images wait in memory: few at a time.
                first, future = waiting.popleft()
                yield first, future.result()
        for image, future in waiting:
            yield image, future.result()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere, or a file that is gone"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image, whatever its name says"
    return printable(str(error)).strip() or type(error).__name__


def _cannot_decode(name: str, reason: str, where: str) -> ValueError:
    return ValueError(f"{name} in {where} cannot be decoded ({reason}): fix or remove it, or leave --strict out.")
