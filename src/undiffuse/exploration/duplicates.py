"""Images that are there twice: to the pixel, or nearly.

Nearly means both of two things. Their 64-bit difference hashes differ in at most 8 bits. And their standardized 8x8
thumbnails are less than half as far apart as the median image is from the one nearest to it: what is nothing special
among handwritten digits, where every 1 resembles another, is a duplicate among photos.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

MOST_BITS = 8
"""By eye: nearly all of CIFAR-10's pairs that differ in at most so many are the same photo (docs/explore.md)."""

LEAST_LIKENESS, SURE_LIKENESS = 0.9, 0.995
"""The correlation that the data ask for is held between these."""

MEASURED_IMAGES = 1000
"""Of so many images the nearest is looked for, to learn how alike the images are anyway."""

MOST_PAIRS = 20_000
"""The search ends here: images of which so many pairs are alike are frames of a film, or worse."""

ROWS, COLUMNS = 512, 4096
"""Images are compared in blocks of this many by this many."""


@dataclass(frozen=True)
class Pair:
    """Two images, by their index in the store."""

    first: int
    second: int
    bits: int
    """In which their difference hashes differ, of 64."""
    similarity: float
    """Correlation of their thumbnails; 1 for equal up to brightness and contrast."""


@dataclass(frozen=True)
class Duplicates:
    exact: tuple[tuple[int, ...], ...]
    """Groups of images with the same pixels, by their index in the store."""
    near: tuple[Pair, ...]
    """Pairs that are nearly the same, the most alike first; of an exact group only the first image is compared."""
    groups: tuple[tuple[int, ...], ...]
    """All that hang together through exact and near pairs, the largest group first."""
    usual_similarity: float
    """Correlation of the median image with the one most like it."""
    asked_similarity: float
    """Correlation from which on a pair counts as near."""
    complete: bool
    """Whether all pairs were compared; else the search ended at its limit."""


def find_duplicates(scanned: Scan) -> Duplicates:
    """Compares every image with every other, in blocks: 60,000 take seconds, a million half an hour."""
    exact = _equal(scanned.digests)
    _, firsts = np.unique(scanned.digests, return_index=True)
    kept = np.sort(firsts)
    thumbnails, hashes = torch.from_numpy(scanned.thumbnails[kept]), scanned.hashes[kept]
    usual = _usual_similarity(thumbnails)
    # Half as far apart: standardized thumbnails are sqrt(2 (1 - correlation)) from each other.
    asked = min(max(1 - (1 - usual) / 4, LEAST_LIKENESS), SURE_LIKENESS)
    found = list(islice(_near_pairs(thumbnails, hashes, asked), MOST_PAIRS + 1))
    near = [Pair(int(kept[pair.first]), int(kept[pair.second]), pair.bits, pair.similarity) for pair in found]
    near.sort(key=lambda pair: -pair.similarity)
    return Duplicates(
        exact=exact,
        near=tuple(near[:MOST_PAIRS]),
        groups=_connected(len(scanned.digests), exact, near[:MOST_PAIRS]),
        usual_similarity=usual,
        asked_similarity=asked,
        complete=len(near) <= MOST_PAIRS,
    )


def _equal(digests: UInt64[np.ndarray, " n"]) -> tuple[tuple[int, ...], ...]:
    """The groups of equal ones, each in the order of the store."""
    order = np.argsort(digests, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(digests[order])) + 1)
    return tuple(sorted(tuple(group.tolist()) for group in groups if len(group) > 1))


def _usual_similarity(thumbnails: Float[Tensor, "n 64"]) -> float:
    """Of the median image to the one most like it; 0 for one image alone."""
    n = len(thumbnails)
    if n < 2:
        return 0.0
    chosen = torch.randperm(n, generator=generator("duplicates", n))[:MEASURED_IMAGES]
    highest = torch.zeros(len(chosen))
    for start in range(0, n, COLUMNS):
        similarity = thumbnails[chosen] @ thumbnails[start : start + COLUMNS].T
        similarity[chosen.unsqueeze(1) == torch.arange(start, start + similarity.shape[1])] = 0.0  # To itself.
        highest = torch.maximum(highest, similarity.amax(dim=1))
    return float(highest.median())


def _near_pairs(thumbnails: Float[Tensor, "n 64"], hashes: UInt64[np.ndarray, " n"], asked: float) -> Iterator[Pair]:
    n = len(thumbnails)
    with Meter("looking for duplicates", 1.0) as meter:
        for top in range(0, n, ROWS):
            for left in range(top, n, COLUMNS):
                similarity = thumbnails[top : top + ROWS] @ thumbnails[left : left + COLUMNS].T
                alike = np.flatnonzero((similarity >= asked).numpy())  # Several times as fast as torch.nonzero.
                rows, columns = np.divmod(alike, similarity.shape[1])
                first, second = rows + top, columns + left
                bits = _differing_bits(hashes[first], hashes[second])
                for i in np.flatnonzero((second > first) & (bits <= MOST_BITS)):
                    like = min(1.0, float(similarity[rows[i], columns[i]]))
                    yield Pair(int(first[i]), int(second[i]), int(bits[i]), like)
            done = 1 - (1 - min(top + ROWS, n) / n) ** 2  # Each row has fewer left to be compared with.
            meter.reach(done, f"{min(top + ROWS, n):,}/{n:,}")


def _differing_bits(first: UInt64[np.ndarray, " p"], second: UInt64[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
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
