"""Duplicates with the names, splits and classes of the images, for the people who have to act on them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from undiffuse.data.originals import Original
from undiffuse.data.store import Store
from undiffuse.exploration.duplicates import Duplicates, Pair

EXAMPLES = 8
"""At most this many of the surest pairs, and of the least certain ones, are shown."""


@dataclass(frozen=True)
class NamedImage:
    """An image that has a duplicate."""

    name: str
    split: str
    """Empty if the source has no splits."""
    class_name: str
    """Empty if the source has no classes."""


@dataclass(frozen=True)
class NamedPair:
    """Two images that are nearly the same."""

    images: tuple[NamedImage, NamedImage]
    hamming_distance: int
    """Bits, of 64, in which their difference hashes differ."""
    similarity: float
    """Correlation of their 8x8 gray thumbnails."""


@dataclass(frozen=True)
class NamedDuplicates:
    """Exact and near duplicates. `docs/explore.md` says how they are decided."""

    exact_groups: tuple[tuple[NamedImage, ...], ...]
    """Groups of images with the same pixels."""
    redundant: int
    """Images that could be removed because another has the same pixels."""
    near_pairs: tuple[NamedPair, ...]
    """The most similar first."""
    groups: int
    """Groups of images that are connected through exact and near pairs."""
    largest_group: int
    """Images in the largest of them."""
    shared_with_train: dict[str, int]
    """For val and test: images that have an exact or near duplicate in train."""
    mixed_class_groups: int
    """Groups with images of several classes: probably wrong labels."""
    median_similarity: float
    """Correlation of the median image with its nearest neighbor."""
    threshold: float
    """Pairs that correlate at least this much count as near duplicates."""
    complete: bool
    """False if the search stopped at its limit: the counts are then lower bounds."""

    def __str__(self) -> str:
        near = count_text(self, len(self.near_pairs))
        shared = [
            f"{count_text(self, count)} of {split} are also in train"
            for split, count in self.shared_with_train.items()
            if count
        ]
        return "; ".join([f"{self.redundant:,} exact, {near} near pairs", *shared])


@dataclass(frozen=True)
class ExamplePair:
    """A pair to look at."""

    images: tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "h w c"]]
    caption: str


def name_duplicates(store: Store, found: Duplicates, splits: Iterable[str]) -> NamedDuplicates:
    """`splits` are those that the store has images of."""
    originals = store.originals_of(i for group in found.groups for i in group)
    named = {i: NamedImage(one.name, one.split, _class_name(store, i)) for i, one in originals.items()}
    return NamedDuplicates(
        exact_groups=tuple(tuple(named[i] for i in group) for group in found.exact),
        redundant=sum(len(group) - 1 for group in found.exact),
        near_pairs=tuple(
            NamedPair((named[pair.first], named[pair.second]), pair.hamming_distance, pair.similarity)
            for pair in found.near
        ),
        groups=len(found.groups),
        largest_group=max(map(len, found.groups), default=0),
        shared_with_train=_shared_with_train(splits, {i: image.split for i, image in named.items()}, found),
        mixed_class_groups=sum(len({named[i].class_name for i in group}) > 1 for group in found.groups),
        median_similarity=found.median_similarity,
        threshold=found.threshold,
        complete=found.complete,
    )


def example_pairs(
    store: Store, found: Duplicates, count: int = EXAMPLES
) -> tuple[list[ExamplePair], list[ExamplePair]]:
    """The surest pairs, and the least certain of the remaining ones: one pair per group, at most `count` of each."""
    group_of = {i: number for number, group in enumerate(found.groups) for i in group}
    surest: dict[int, Pair] = {}
    weakest: dict[int, Pair] = {}
    exact = [Pair(group[0], group[1], 0, 1.0) for group in found.exact]
    for pair in [*exact, *found.near]:  # The most similar first.
        surest.setdefault(group_of[pair.first], pair)
        weakest[group_of[pair.first]] = pair
    rest = sorted((weakest[group] for group in list(surest)[count:]), key=lambda pair: pair.similarity)
    pairs = [*list(surest.values())[:count], *rest[:count]]
    originals = store.originals_of(i for pair in pairs for i in (pair.first, pair.second))
    examples = [_example(store, pair, originals) for pair in pairs]
    return examples[:count], examples[count:]


def similarity_text(similarity: float) -> str:
    """A percentage, rounded down and never 100.0%, which would mean the same pixels."""
    return f"{min(math.floor(1000 * similarity), 999) / 10:.1f}%"


def count_text(duplicates: NamedDuplicates, count: int) -> str:
    """Counts of pairs are lower bounds if the search stopped early."""
    return f"{count:,}" if duplicates.complete else f"at least {count:,}"


def _example(store: Store, pair: Pair, originals: Mapping[int, Original]) -> ExamplePair:
    first, second = store.read([pair.first, pair.second])
    names = originals[pair.first].name, originals[pair.second].name
    kinds = [" ".join(filter(None, (originals[i].split, _class_name(store, i)))) for i in (pair.first, pair.second)]
    who = kinds[0] if kinds[0] == kinds[1] else " | ".join(kinds)
    equal = (first == second).all()
    measured = f"{similarity_text(pair.similarity)} similar, {pair.hamming_distance} bits apart"
    return ExamplePair((first, second), f"{who or ' | '.join(names)}\n{'the same pixels' if equal else measured}")


def _class_name(store: Store, index: int) -> str:
    """The class of an image; empty if there are no classes."""
    label = int(store.labels[index])
    return store.class_names[label] if label >= 0 else ""


def _shared_with_train(splits: Iterable[str], split_of: Mapping[int, str], found: Duplicates) -> dict[str, int]:
    """Counts images that one pair or an exact group connects with train; several pairs in a row do not count."""
    others = [split for split in ("val", "test") if {split, "train"} <= set(splits)]
    if not others:
        return {}
    exact = {group[0]: group for group in found.exact}  # Only the first image of an exact group is in pairs.
    units = {i: exact.get(i, (i,)) for i in {*exact, *(i for pair in found.near for i in (pair.first, pair.second))}}
    in_train = {unit for unit, members in units.items() if any(split_of[i] == "train" for i in members)}
    leaked = set(in_train)
    for pair in found.near:
        leaked |= {pair.first, pair.second} if {pair.first, pair.second} & in_train else set()
    counts = Counter(split_of[i] for unit in leaked for i in units[unit])
    return {split: counts[split] for split in others}
