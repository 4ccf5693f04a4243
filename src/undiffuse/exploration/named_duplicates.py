"""Duplicates in the words of the people who must do something about them: names, splits and classes."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from undiffuse.data.originals import Original
from undiffuse.data.store import Store
from undiffuse.exploration.duplicates import Duplicates, Pair

SHOWN = 8
"""Pairs that are shown at most, of the surest and of the most doubtful ones."""


@dataclass(frozen=True)
class Member:
    """One of several images that are alike."""

    name: str
    split: str
    """Empty where there are none."""
    class_name: str
    """Empty where there are none."""


@dataclass(frozen=True)
class NamedPair:
    """Two images that are nearly the same."""

    members: tuple[Member, Member]
    bits: int
    similarity: float


@dataclass(frozen=True)
class Copies:
    """What `duplicates` found, by name."""

    exact_groups: tuple[tuple[Member, ...], ...]
    superfluous: int
    """Images that are exact copies of another."""
    near_pairs: tuple[NamedPair, ...]
    """The most alike first."""
    groups: int
    """All that hang together through exact and near pairs count as one."""
    largest_group: int
    across_splits: dict[str, int]
    """Of each split but train, the images of which train has a duplicate, exact or near."""
    across_classes: int
    """Groups whose images are of several classes: likely wrong labels."""
    usual_similarity: float
    asked_similarity: float
    complete: bool


@dataclass(frozen=True)
class ShownPair:
    """A pair to look at."""

    images: tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "h w c"]]
    caption: str


def copies(store: Store, found: Duplicates, present: Iterable[str]) -> Copies:
    """`present` are the splits that the store has images of."""
    about = store.originals_of(i for group in found.groups for i in group)
    members = {i: Member(original.name, original.split, class_of(store, i)) for i, original in about.items()}
    return Copies(
        exact_groups=tuple(tuple(members[i] for i in group) for group in found.exact),
        superfluous=sum(len(group) - 1 for group in found.exact),
        near_pairs=tuple(
            NamedPair((members[pair.first], members[pair.second]), pair.bits, pair.similarity) for pair in found.near
        ),
        groups=len(found.groups),
        largest_group=max(map(len, found.groups), default=0),
        across_splits=_also_in_train(present, {i: member.split for i, member in members.items()}, found),
        across_classes=sum(len({members[i].class_name for i in group}) > 1 for group in found.groups),
        usual_similarity=found.usual_similarity,
        asked_similarity=found.asked_similarity,
        complete=found.complete,
    )


def shown_pairs(store: Store, found: Duplicates, count: int = SHOWN) -> tuple[list[ShownPair], list[ShownPair]]:
    """The surest pairs, and of what is left the most doubtful ones: one pair a group, at most `count` each."""
    group_of = {i: number for number, group in enumerate(found.groups) for i in group}
    surest: dict[int, Pair] = {}
    weakest: dict[int, Pair] = {}
    for pair in [*(Pair(group[0], group[1], 0, 1.0) for group in found.exact), *found.near]:  # The most alike first.
        surest.setdefault(group_of[pair.first], pair)
        weakest[group_of[pair.first]] = pair
    left = sorted((weakest[group] for group in list(surest)[count:]), key=lambda pair: pair.similarity)
    pairs = [*list(surest.values())[:count], *left[:count]]
    about = store.originals_of(i for pair in pairs for i in (pair.first, pair.second))
    shown = [_shown(store, pair, about) for pair in pairs]
    return shown[:count], shown[count:]


def _shown(store: Store, pair: Pair, about: Mapping[int, Original]) -> ShownPair:
    first, second = store.read([pair.first, pair.second])
    names = about[pair.first].name, about[pair.second].name
    words = [" ".join(filter(None, (about[i].split, class_of(store, i)))) for i in (pair.first, pair.second)]
    who = words[0] if words[0] == words[1] else " | ".join(words)
    same = (first == second).all()
    how = "the same pixels" if same else f"{percent(pair.similarity)} alike, {pair.bits} bits apart"
    return ShownPair((first, second), f"{who or ' | '.join(names)}\n{how}")


def class_of(store: Store, index: int) -> str:
    """The class of an image, empty where there are no classes."""
    label = int(store.labels[index])
    return store.class_names[label] if label >= 0 else ""


def percent(similarity: float) -> str:
    """Rounded down, and never 100.0%: that would be the same pixels."""
    return f"{min(math.floor(1000 * similarity), 999) / 10:.1f}%"


def at_least(copies: Copies, count: int) -> str:
    """Counts of pairs are lower bounds where the search ended early."""
    return f"{count:,}" if copies.complete else f"at least {count:,}"


def _also_in_train(present: Iterable[str], splits: Mapping[int, str], found: Duplicates) -> dict[str, int]:
    """Through one pair or an exact group, not through a chain of pairs."""
    others = [split for split in ("val", "test") if {split, "train"} <= set(present)]
    if not others:
        return {}
    exact = {group[0]: group for group in found.exact}  # Of an exact group only the first image is in pairs.
    units = {i: exact.get(i, (i,)) for i in {*exact, *(i for pair in found.near for i in (pair.first, pair.second))}}
    in_train = {unit for unit, together in units.items() if any(splits[i] == "train" for i in together)}
    leaked = set(in_train)
    for pair in found.near:
        leaked |= {pair.first, pair.second} if {pair.first, pair.second} & in_train else set()
    counts = Counter(splits[i] for unit in leaked for i in units[unit])
    return {split: counts[split] for split in others}
