"""Features of a set of images, computed once: kept on disk in portions, so that work goes on where it stopped."""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from filelock import FileLock

from undiffuse.data.store import cache_folder
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNet
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.files import atomic_path, remove
from undiffuse.utils.terminal import Meter

FORMAT = 1
"""Part of every key: raise it when the same images would get other features."""

PORTION = 1024
"""Images whose features are written at once."""

Rows = np.ndarray
"""(images, dimensions) in float32, usually mapped from disk: what is not looked at costs no memory."""


T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """This process's share of the work: portions rank, rank + world, and so on."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None
    """Returns when all processes have come here."""


@dataclass(frozen=True)
class Features:
    """What a feature network makes of a set of images."""

    features: Rows
    logits: Rows
    """Without columns where the network has no such score."""
    cached: bool
    """Whether they were computed before."""
    folder: Path
    """Where they are kept, and what follows from them alone."""


def features_of(net: FeatureNet, images: ImageSet, batch: int, share: Share) -> Features:
    """The features, from the cache where the same images went through the same network before.

    The key holds all that they depend on: the images' content, size and fit, the network, its resize and weights.
    Files that a crash left cut short count as missing.

    Raises:
        ValueError: the network's weights make features that are not finite.
        WorkFailed: memory ran out.
    """
    known = [FORMAT, net.name, net.resize, net.weights_sha256, images.content, images.size, images.fit]
    key = hashlib.sha256(repr(known).encode()).hexdigest()[:20]
    folder = cache_folder() / f"features-{net.name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Another command may be at the same images: its processes wait until ours are done.
    with FileLock(f"{folder}.lock") if share.rank == 0 else nullcontext():
        share.wait()
        cached = readable(lambda: _joined(folder, len(images))) is not None
        share.wait()  # All must have looked before the first one writes.
        if not cached:
            _compute(net, images, batch, share, folder)
            share.wait()
            if share.rank == 0:
                _join(folder, len(images))
            share.wait()
    return Features(*_joined(folder, len(images)), cached, folder)


def readable(read: Callable[[], T]) -> T | None:
    """What `read` makes of files in the cache; None where they are missing, cut or damaged."""
    try:
        return read()
    except Exception:  # numpy and zipfile raise nearly anything at damaged files; they are then made anew.
        return None


def _joined(folder: Path, total: int) -> tuple[Rows, Rows]:
    """Features and logits of all images, mapped from disk.

    Raises:
        Exception: of nearly any kind, where they are not there whole.
    """
    features, logits = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("features", "logits"))
    if not len(features) == len(logits) == total:
        raise ValueError(f"{folder} has features of {len(features)} images and logits of {len(logits)}, not {total}.")
    return features, logits


def _compute(net: FeatureNet, images: ImageSet, batch: int, share: Share, folder: Path) -> None:
    starts = range(share.rank * PORTION, len(images), share.world * PORTION)
    missing = [start for start in starts if not _has_portion(folder, start)]
    what = f"{net.name} features of {images.name}"
    with Meter(what, len(missing) * PORTION) as meter:
        for i, start in enumerate(missing):
            indices = range(start, min(start + PORTION, len(images)))
            parts = []
            for first in range(0, len(indices), batch):
                parts.append(_extracted(net, images.read(indices[first : first + batch])))
                done = i * PORTION + first + len(parts[-1][0])
                meter.reach(done, f"{done:,} images")
            features, logits = (np.concatenate(of_parts) for of_parts in zip(*parts, strict=True))
            with atomic_path(_portion(folder, start), durable=False) as temporary:
                np.savez(temporary, features=features, logits=logits)


def _extracted(net: FeatureNet, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        extracted = net.extract(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    except torch.OutOfMemoryError as error:
        raise WorkFailed(f"Out of memory: --batch {max(1, len(pixels) // 2)} needs less.") from error
    if not all(part.isfinite().all() for part in extracted):
        raise ValueError(f"The weights {net.weights} make features that are not finite: give others with --weights.")
    return extracted.features.numpy(), extracted.logits.numpy()


def _join(folder: Path, total: int) -> None:
    """One array of the portions. The features come last: where they are, everything is."""
    starts = range(0, total, PORTION)
    portions = [_portion(folder, start) for start in starts]
    for file in folder.glob("*.npz"):  # What followed from features that were there before.
        if file not in portions:
            remove(file)
    for name in ("logits", "features"):
        with np.load(portions[0]) as first:
            columns = first[name].shape[1]
        with atomic_path(folder / f"{name}.npy") as temporary:
            whole = np.lib.format.open_memmap(temporary, "w+", np.float32, (total, columns))
            for start, file in zip(starts, portions, strict=True):
                with np.load(file) as portion:
                    whole[start : start + PORTION] = portion[name]
            whole.flush()
            del whole
    for file in portions:
        remove(file)


def _has_portion(folder: Path, start: int) -> bool:
    """Whether it is there and can be read: a damaged one is noticed while it can still be made again."""

    def read() -> list[np.ndarray]:
        with np.load(_portion(folder, start)) as portion:
            return [portion[name] for name in ("features", "logits")]

    return readable(read) is not None


def _portion(folder: Path, start: int) -> Path:
    return folder / f"portion-{start:09d}.npz"
