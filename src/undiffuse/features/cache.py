"""Features of a set of images, computed once: kept on disk in chunks, so that interrupted work can be resumed."""

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float32
from torch import Tensor

from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import cache_folder
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNetwork
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.files import atomic_path, remove
from undiffuse.utils.terminal import Meter, log
from undiffuse.utils.text import duration
from undiffuse.utils.world import World

FORMAT = 1
"""Part of every key: raise it when the same images would get other features."""

CHUNK = 1024
"""The most images whose features are written at once."""

LONG_SECONDS = 60
"""If features will take longer than this, a notice says so before they are computed."""

T = TypeVar("T")

NOT_SHARED = (
    "The processes do not see the same cache: set UNDIFFUSE_CACHE to a folder that all machines share, and run the "
    "same command again."
)


@dataclass(frozen=True)
class Features:
    """The features of a set of images, mapped from disk: what is not read uses no memory."""

    features: Float32[np.ndarray, "n d"]
    logits: Float32[np.ndarray, "n k"]
    """Class logits for the Inception Score; k = 0 if the network is not a classifier."""
    cached: bool
    """Whether they had been computed before."""
    folder: Path
    """Where they are, and where results that depend only on them may be kept."""


def features_of(
    network: FeatureNetwork, images: ImageSet, batch: int, world: World, how_to_need_less: str = ""
) -> Features:
    """The images' features, from the cache if the same network has seen the same images before.

    The cache's key contains everything that features depend on: the images' content, size and fit, and the network, its
    resize and its weights. Files that were cut short by a crash count as missing. Processes divide the chunks among
    them: each computes every `world.size`-th. If it takes long, a notice says how long, and `how_to_need_less`.

    Raises:
        ValueError: the network returns features that are not finite, or not one row for each image; or the
            processes have caches of their own.
        WorkFailed: out of memory.
    """
    known = [FORMAT, network.name, network.resize, network.weights_sha256, images.content, images.size, images.fit]
    key = hashlib.sha256(repr(known).encode()).hexdigest()[:20]
    folder = cache_folder() / f"features-{network.name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # If another command works on the same images, its processes wait until ours have finished.
    with FileLock(f"{folder}.lock") if world.is_main else nullcontext():
        if world.is_main and not network.cacheable:
            remove(folder)
        cached = world.on_main(lambda: readable(lambda: _load(folder, len(images))) is not None)
        if not cached:
            _compute(network, images, batch, world, folder, how_to_need_less)
            world.barrier()
            if world.is_main:
                _join(folder, _seen_by_all(folder, _chunks(len(images), batch, world)), len(images))
            world.barrier()
    loaded = readable(lambda: _load(folder, len(images)))
    if loaded is None:
        raise ValueError(NOT_SHARED)
    return Features(*loaded, cached, folder)


def _seen_by_all(folder: Path, chunks: list[range]) -> list[range]:
    """The chunks.

    Raises:
        ValueError: some are missing here, so other processes have written them elsewhere.
    """
    if not all(_has_chunk(folder, chunk) for chunk in chunks):
        raise ValueError(NOT_SHARED)
    return chunks


def readable(read: Callable[[], T]) -> T | None:
    """What `read` returns from files in the cache; None if they are missing, cut short or damaged."""
    try:
        return read()
    except Exception:  # Damaged files make numpy and zipfile raise nearly anything; they are computed again.
        return None


def _load(folder: Path, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits of all images, mapped from disk.

    Raises:
        Exception: of nearly any type, if they are not complete.
    """
    features, logits = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("features", "logits"))
    if not len(features) == len(logits) == total:
        raise ValueError(f"{folder} has features of {len(features)} images and logits of {len(logits)}, not {total}.")
    return features, logits


def _compute(
    network: FeatureNetwork, images: ImageSet, batch: int, world: World, folder: Path, how_to_need_less: str = ""
) -> None:
    """Computes this process's chunks that are not there yet."""
    mine = _chunks(len(images), batch, world)[world.rank :: world.size]
    missing, done = [chunk for chunk in mine if not _has_chunk(folder, chunk)], 0
    total = sum(map(len, missing))
    with Meter(f"{network.name} features of {images.name}", total) as meter:
        meter.reach(0, "0 images")
        for indices in missing:
            batches = []
            for first in range(0, len(indices), batch):
                began = time.monotonic()
                pixels = images.read(indices[first : first + batch])
                batches.append(_extract(network, to_nchw(pixels)))
                if done == len(batches[0][0]) and len(batches) == 2:  # The first warms up.
                    seconds = (time.monotonic() - began) / len(pixels) * total
                    _announce(network, images, seconds, how_to_need_less)
                done += len(pixels)
                meter.reach(done, f"{done:,} images")
            features, logits = (np.concatenate(parts) for parts in zip(*batches, strict=True))
            with atomic_path(_chunk_file(folder, indices), durable=False) as temporary:
                np.savez(temporary, features=features, logits=logits)


def _chunks(total: int, batch: int, world: World) -> list[range]:
    """The images whose features are written at once: whole batches, and fewer where some processes would get none."""
    whole = -(-total // (world.size * batch)) * batch
    size = min(max(1, CHUNK // batch) * batch, whole)
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def _announce(network: FeatureNetwork, images: ImageSet, seconds: float, how_to_need_less: str) -> None:
    if seconds < LONG_SECONDS:
        return
    kept = "They are kept on this machine, so it takes that long only once." if network.cacheable else ""
    log.info(
        f"{network.name} features of {images.description}: about {duration(seconds)}. "
        + " ".join(filter(None, [kept, how_to_need_less]))
    )


def _extract(network: FeatureNetwork, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits of a batch."""
    try:
        features, logits = network(pixels)
    except torch.OutOfMemoryError as error:
        raise WorkFailed(f"Out of memory: --batch {max(1, len(pixels) // 2)} needs less.") from error
    if not (features.isfinite().all() and logits.isfinite().all()):
        raise ValueError(
            f"{network.name} with the weights {network.weights} returns features that are not finite: name other "
            "weights with --weights."
        )
    return features.numpy(), logits.numpy()


def _join(folder: Path, chunks: list[range], total: int) -> None:
    """Joins the chunks into one array. The features are written last: if they are there, everything is."""
    files = [_chunk_file(folder, chunk) for chunk in chunks]
    for file in folder.glob("*.npz"):  # Results that depend on features that were there before.
        if file not in files:
            remove(file)
    for name in ("logits", "features"):
        with np.load(files[0]) as first:
            columns = first[name].shape[1]
        with atomic_path(folder / f"{name}.npy") as temporary:
            whole = np.lib.format.open_memmap(temporary, "w+", np.float32, (total, columns))
            for chunk, file in zip(chunks, files, strict=True):
                with np.load(file) as part:
                    whole[chunk.start : chunk.stop] = part[name]
            whole.flush()
            del whole
    for file in files:
        remove(file)


def _has_chunk(folder: Path, chunk: range) -> bool:
    """Whether the chunk can be read: a damaged one must be noticed while it can still be computed again."""

    def read() -> list[int]:
        with np.load(_chunk_file(folder, chunk)) as part:
            return [len(part[name]) for name in ("features", "logits")]

    return readable(read) == 2 * [len(chunk)]


def _chunk_file(folder: Path, chunk: range) -> Path:
    return folder / f"chunk-{chunk.start:09d}-{chunk.stop:09d}.npz"
