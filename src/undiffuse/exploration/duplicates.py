"""Exact duplicates, which have the same pixels, and near duplicates.

Near duplicates pass two tests. Their 64-bit difference hashes differ in at most 8 bits. And their standardized 8x8
thumbnails are at most half as far apart as the median image is from its nearest neighbor: a similarity that is common
among handwritten digits, where every 1 resembles another, marks a duplicate among photos.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from undiffuse.exploration.scan import Scan
from undiffuse.utils.randomness import generator
from undiffuse.utils.terminal import Meter
from undiffuse.utils.world import World

MAX_HAMMING = 8
"""Checked by eye: nearly all pairs in CIFAR-10 within this Hamming distance are the same photo (docs/explore.md)."""

MIN_THRESHOLD, MAX_THRESHOLD = 0.9, 0.995
"""The threshold that follows from the data is clamped to this range of correlations."""

NEIGHBOR_SAMPLE = 1000
"""Images whose nearest neighbors show how similar the images are in general."""

MAX_PAIRS = 20_000
"""The search stops here: with this many similar pairs, the images are frames of a film, or worse."""

ROWS, COLUMNS = 512, 4096
"""Images are compared in blocks of this many rows and columns."""


@dataclass(frozen=True)
class Pair:
    """Two images, by their index in the store."""

    first: int
    second: int
    hamming_distance: int
    """Bits, of 64, in which their difference hashes differ."""
    similarity: float
    """Correlation of their thumbnails; 1 if they are equal up to brightness and contrast."""


@dataclass(frozen=True)
class Duplicates:
    """Duplicates by the images' index in the store; `named_duplicates` gives them names."""

    exact: tuple[tuple[int, ...], ...]
    """Groups of images with the same pixels."""
    near: tuple[Pair, ...]
    """Near-duplicate pairs, the most similar first. Only the first image of an exact group is compared."""
    groups: tuple[tuple[int, ...], ...]
    """Images that are connected through exact and near pairs, the largest group first."""
    median_similarity: float
    """Correlation of the median image with its nearest neighbor."""
    threshold: float
    """Pairs that correlate at least this much count as near duplicates."""
    complete: bool
    """Whether all pairs were compared; False if the search stopped at its limit."""


def find_duplicates(scanned: Scan, world: World | None = None) -> Duplicates:
    """Compares every image with every other, in blocks: 60,000 images take seconds, a million half an hour.

    The processes of `world` share the blocks, and all get the same result as one alone.
    """
    world = world or World.alone()
    exact = _groups_of_equal(scanned.digests)
    _, firsts = np.unique(scanned.digests, return_index=True)
    kept = np.sort(firsts)
    thumbnails, hashes = torch.from_numpy(scanned.thumbnails[kept]), scanned.hashes[kept]
    median = _median_similarity(thumbnails)
    # Half as far apart: standardized thumbnails have a distance of sqrt(2 (1 - correlation)).
    threshold = min(max(1 - (1 - median) / 4, MIN_THRESHOLD), MAX_THRESHOLD)
    mine = list(islice(_near_pairs(thumbnails, hashes, threshold, world), MAX_PAIRS + 1))
    # In the order of the blocks. A process that stopped at the limit has enough for what comes before its last block.
    in_order = heapq.merge(*world.share(world.collect(mine)), key=lambda pair: pair.first // ROWS)
    found = islice(in_order, MAX_PAIRS + 1)
    near = [replace(pair, first=int(kept[pair.first]), second=int(kept[pair.second])) for pair in found]
    near.sort(key=lambda pair: -pair.similarity)
    return Duplicates(
        exact=exact,
        near=tuple(near[:MAX_PAIRS]),
        groups=_connected(len(scanned.digests), exact, near[:MAX_PAIRS]),
        median_similarity=median,
        threshold=threshold,
        complete=len(near) <= MAX_PAIRS,
    )


def _groups_of_equal(digests: UInt64[np.ndarray, " n"]) -> tuple[tuple[int, ...], ...]:
    """Images with equal digests, each group in the order of the store."""
    order = np.argsort(digests, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(digests[order])) + 1)
    return tuple(sorted(tuple(group.tolist()) for group in groups if len(group) > 1))


def _median_similarity(thumbnails: Float[Tensor, "n 64"]) -> float:
    """Of the median image with its nearest neighbor; 0 if there is only one image."""
    n = len(thumbnails)
    if n < 2:
        return 0.0
    chosen = torch.randperm(n, generator=generator("duplicates", n))[:NEIGHBOR_SAMPLE]
    highest = torch.zeros(len(chosen))
    for start in range(0, n, COLUMNS):
        similarity = thumbnails[chosen] @ thumbnails[start : start + COLUMNS].T
        similarity[chosen.unsqueeze(1) == torch.arange(start, start + similarity.shape[1])] = 0.0  # With itself.
        highest = torch.maximum(highest, similarity.amax(dim=1))
    return float(highest.median())


def _near_pairs(
    thumbnails: Float[Tensor, "n 64"], hashes: UInt64[np.ndarray, " n"], threshold: float, world: World
) -> Iterator[Pair]:
    """Those whose first image is in this process's blocks of rows."""
    n = len(thumbnails)
    with Meter("looking for duplicates", 1.0) as meter:
        for top in range(0, n, ROWS)[world.rank :: world.size]:
            for left in range(top, n, COLUMNS):
                similarity = thumbnails[top : top + ROWS] @ thumbnails[left : left + COLUMNS].T
                # Several times as fast as torch.nonzero.
                similar = np.flatnonzero((similarity >= threshold).numpy())
                rows, columns = np.divmod(similar, similarity.shape[1])
                first, second = rows + top, columns + left
                distance = _hamming_distance(hashes[first], hashes[second])
                for i in np.flatnonzero((second > first) & (distance <= MAX_HAMMING)):
                    correlation = min(1.0, float(similarity[rows[i], columns[i]]))
                    yield Pair(int(first[i]), int(second[i]), int(distance[i]), correlation)
            done = 1 - (1 - min(top + ROWS, n) / n) ** 2  # Each row is compared with fewer images than the last.
            meter.reach(done, f"{min(top + ROWS, n):,}/{n:,}")


def _hamming_distance(first: UInt64[np.ndarray, " p"], second: UInt64[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
    return np.unpackbits((first ^ second).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1, dtype=np.int64)


def _connected(n: int, exact: Sequence[Sequence[int]], near: Sequence[Pair]) -> tuple[tuple[int, ...], ...]:
    edges = [(group[0], other) for group in exact for other in group[1:]] + [(p.first, p.second) for p in near]
    if not edges:
        return ()
    first, second = np.array(edges).T
    _, component = connected_components(coo_array((np.ones(len(edges)), (first, second)), shape=(n, n)))
    groups: dict[int, list[int]] = {}
    for i in np.unique([first, second]).tolist():
        groups.setdefault(int(component[i]), []).append(i)
    return tuple(sorted((tuple(group) for group in groups.values()), key=lambda group: (-len(group), group)))
