"""Decoded images as uint8 arrays on disk, read in batches: a million images cost disk, not memory."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pydantic
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor

from undiffuse.data.building import Plan, build_shards, cannot_decode, finish
from undiffuse.data.image_condition import ImageCondition, Indices
from undiffuse.data.open import open_source, quick_signature
from undiffuse.data.originals import Original
from undiffuse.data.paths import DataLike, cache_folder, data_name, printable
from undiffuse.data.pixels import to_nchw, to_signed_range
from undiffuse.data.shards import Shard
from undiffuse.data.source import Source
from undiffuse.data.survey import Survey, survey
from undiffuse.data.table import Table
from undiffuse.utils.conditions import Condition, Conditions, simplest
from undiffuse.utils.files import write_atomically
from undiffuse.utils.limits import cache_key
from undiffuse.utils.names import Fit, Split
from undiffuse.utils.terminal import log
from undiffuse.utils.text import plural, size_text
from undiffuse.utils.validation import STRICT
from undiffuse.utils.world import World

FORMAT = 2
"""Version of the decoder: raise it when the same images would be decoded differently."""

FILES = 4
"""Version of the files in the cache: raise it when a store or survey is written differently."""

SHARD_BYTES = 2 * 2**30
"""Bytes of pixels in a shard if all of its images can be decoded."""

SKIPPED_SHOWN = 20
"""Up to this many bad images are named one by one."""

Side = Annotated[int, Field(ge=4, le=4096)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Which images, and how they are decoded."""

    data: str = "digits"
    """digits, cifar10, flowers102, a folder, a .zip or .tar of images, or the address of one. "sequence:..." stands for
    images that were passed as Python objects, and cannot be opened by this name."""
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
    """Decoded images on disk, in shards. Cheap to open and to keep: pixels are read only when requested."""

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
    starts: tuple[int, ...] = (0,)
    """The index of the first image in each shard."""
    table: Table | None = None
    """Numbers and categories that a network is told of each image."""
    image_condition: ImageCondition | None = None
    """Another image that a network is told of beside each of them."""

    def __len__(self) -> int:
        return self.total_images

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.channels, *self.size

    def read(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "b h w c"]:
        """The pixels of the images with these indices."""
        indices = np.asarray(indices)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.total_images:
            raise IndexError(f"There are no images {indices.min()} to {indices.max()} among {self.total_images}.")
        of_shard = np.searchsorted(self.starts, indices, side="right") - 1
        pixels = np.empty((len(indices), *self.size, self.channels), np.uint8)
        for number in np.unique(of_shard):
            here = of_shard == number
            shard = Shard.of(self.folder, int(number))
            pixels[here] = shard.read(indices[here] - self.starts[number], pixels.shape[1:])
        return pixels

    @property
    def shards(self) -> list[Shard]:
        return [Shard.of(self.folder, number) for number in range(len(self.starts))]

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """The class index of each image; -1 without classes."""
        return np.concatenate([shard.labels() for shard in self.shards])

    def condition(self, indices: Indices, image: Float[Tensor, "b i h w"] | None = None) -> Condition:
        """What a network may be told of the images with these indices; the other `image`, if it was augmented."""
        numbers, categories = self.table.told(indices) if self.table else (None, None)
        label = torch.from_numpy(self.labels[np.asarray(indices)])
        other = self._other_images(indices) if image is None else image
        return simplest(Conditions(label, numbers=numbers, categories=categories, image=other))

    def _other_images(self, indices: Indices) -> Float[Tensor, "b i h w"] | None:
        if self.image_condition is None:
            return None
        x = to_signed_range(to_nchw(self.image_condition.beside(self.read(indices), indices)))
        return self.image_condition.told(x, indices)[1]

    def originals(self) -> Iterator[Original]:
        """What each image was like before it was decoded, in order."""
        for shard in self.shards:
            yield from shard.originals()

    def originals_of(self, indices: Iterable[int]) -> dict[int, Original]:
        """What the images with these indices were like before they were decoded, by index."""
        chosen = set(indices)
        return {i: original for i, original in enumerate(self.originals()) if i in chosen}

    @property
    def names(self) -> list[str]:
        """The name of each image inside its source."""
        return [original.name for original in self.originals()]


def open_store(
    config: DataConfig, strict: bool = False, data: DataLike | None = None, world: World | None = None
) -> Store:
    """The decoded images, from the cache if the same images have been decoded with the same options before.

    Args:
        config: The images by name, and how they are decoded.
        strict: Fail if an image cannot be decoded.
        data: The images themselves, where `config.data` is only the name of a sequence of them.
        world: The processes that all call this together: those of one machine share the work. None: this one alone.

    Raises:
        FileNotFoundError, ValueError: see `open_source`; or no image can be decoded, or with `strict`, one cannot.
    """
    images = config.data if data is None else data
    opening = _Opening(lambda: open_source(images, config.data_root, config.split), images, config)
    return _opened(opening, strict, world)


def store_of(
    source: Callable[[], Source], config: DataConfig, strict: bool = False, world: World | None = None
) -> Store:
    """Like `open_store`, for a source that is opened anyway; each process calls `source` at most once."""
    return _opened(_Opening(source, None, config), strict, world)


def _opened(opening: "_Opening", strict: bool, world: World | None) -> Store:
    world = world or World(0, 1, torch.device("cpu"))
    found = world.on_each_machine(opening.find)
    if isinstance(found, Plan) and (world.local_rank == 0 or len(found.shards) > 1):
        build_shards(opening.source, found, strict)
    store = world.on_each_machine(lambda: found if isinstance(found, Store) else opening.finish(found))
    return _checked(store, strict, opening)


@dataclass(frozen=True)
class _Opening:
    """The steps of opening a store, which processes take together."""

    open: Callable[[], Source]
    data: DataLike | None
    """What a memo of the store can be kept for."""
    config: DataConfig

    @cached_property
    def source(self) -> Source:
        return self.open()

    @property
    def where(self) -> str:
        """How messages refer to the images; without opening them, if that is not necessary."""
        return self.source.where if self.data is None else printable(data_name(self.data))

    @cached_property
    def memo(self) -> Path | None:
        """The file that remembers which store was opened the last time, as long as the images are the same."""
        signature = None if self.data is None else quick_signature(self.data)
        options = [FORMAT, FILES, SHARD_BYTES, *cache_key(), self.config.split, self.config.size, self.config.fit]
        key = hashlib.sha256(repr([*options, self.config.channels, signature]).encode()).hexdigest()[:20]
        return cache_folder() / f"opened-{key}.json" if signature else None

    def find(self) -> Store | Plan:
        """The store, or the plan for it if it is still to be built."""
        if self.memo and self.memo.exists():
            known = json.loads(self.memo.read_text(encoding="utf-8"))
            folder = cache_folder() / known["store"]
            store = _load(folder) if (folder / "store.json").exists() else None
            if store and all(shard.is_whole for shard in store.shards):
                for notice in known["notices"]:
                    log.info(notice)
                return store
        plan = _plan(self.source, self.config)
        return self._load(plan) if plan.is_finished else plan

    def finish(self, plan: Plan) -> Store:
        """The store, once its shards are there."""
        finish(self.source, plan)
        return self._load(plan)

    def _load(self, plan: Plan) -> Store:
        if self.memo:
            known = {"store": plan.folder.name, "notices": self.source.notices}
            write_atomically(self.memo, json.dumps(known))
        return _load(plan.folder)


def _plan(source: Source, config: DataConfig) -> Plan:
    for notice in source.notices:
        log.info(notice)
    cache = cache_folder()
    content = _content(source, cache)
    size, channels = config.size, config.channels
    if size is None or channels is None:
        limits = "".join(f"-{limit:g}" for limit in cache_key())
        seen = _surveyed(source, cache / f"survey-{FILES}-{content}{limits}.json")
        size, channels = size or seen.size, channels or seen.channels
    split, classes = source.split, source.class_names
    options = [
        FORMAT,
        FILES,
        SHARD_BYTES,
        *cache_key(),
        source.name,
        content,
        split,
        classes,
        size,
        config.fit,
        channels,
    ]
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:20]
    folder = cache / f"{source.name}-{size_text(size)}x{channels}-{key}"
    shard_images = max(1, SHARD_BYTES // (size[0] * size[1] * channels))
    signature = source.signature() if source.signature else None
    return Plan(folder, content, source.total_images, signature, shard_images, size, config.fit, channels)


def _checked(store: Store, strict: bool, opening: _Opening) -> Store:
    """Tells which images were left out.

    Raises:
        ValueError: there are some, with `strict`.
    """
    if store.skipped and strict:
        raise cannot_decode(*store.skipped[0], opening.where)
    if store.skipped:
        _log_skipped(store)
    return store


def _log_skipped(store: Store) -> None:
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


def _load(folder: Path) -> Store:
    about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    skipped = tuple((name, reason) for name, reason in about.pop("skipped"))
    size, class_names, starts = (tuple(about.pop(name)) for name in ("size", "class_names", "starts"))
    return Store(folder=folder, size=size, class_names=class_names, skipped=skipped, starts=starts, **about)
