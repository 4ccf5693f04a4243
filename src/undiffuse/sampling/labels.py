"""Labels: by class name, by index, none, or a mix of them; and which seed gets which."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from undiffuse.utils.conditions import NO_LABEL

Label = int | str
"""A class by index or name; -1 or "none" for no label."""

Pattern = tuple[int, ...]
"""Labels that seeds take in turn: seed i the one at i modulo their number."""

MOST_LABELS = 100_000
"""Of a pattern."""


def find_label(class_names: tuple[str, ...], label: Label) -> int:
    """The index of a class given by index or name; -1 for "none".

    Raises:
        ValueError: the model has no such class, and the one with the nearest name is suggested; or it has no classes.
    """
    text = str(label)
    if not class_names:
        raise ValueError(f"--label {text}: this model was trained without classes; leave --label out.")
    if text in class_names:
        return class_names.index(text)
    if text.lower() == "none" or (isinstance(label, int) and label == NO_LABEL):
        return NO_LABEL
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    folded = {name.lower(): name for name in reversed(class_names)}
    near = difflib.get_close_matches(text.lower(), folded, 1, 0.6)
    shown = ", ".join(class_names[:12]) + (", ..." if len(class_names) > 12 else "")
    hint = f"did you mean {folded[near[0]]}?" if near else f"choose 0 to {len(class_names) - 1} or one of {shown}."
    raise ValueError(f"--label {text}: this model has no such class; {hint}")


def find_pattern(class_names: tuple[str, ...], label: Label) -> Pattern:
    """The labels that `label` names: one, "all", or a mix such as "rose*4,sunflower*2,all".

    Raises:
        ValueError: the model has no such class, or no classes; or there are too many labels.
    """
    text = str(label)
    if text in class_names or not isinstance(label, str):
        return (find_label(class_names, label),)
    labels: list[int] = []
    for term in text.split(","):
        name, star, times = term.strip().rpartition("*")
        if not star or term.strip() in class_names:
            name, times = term.strip(), "1"
        if not times.isdecimal() or not 1 <= int(times) <= MOST_LABELS:
            raise ValueError(f"--label {text}: write how often after each class, from *1 to *{MOST_LABELS}.")
        every = name == "all" and class_names and name not in class_names
        each = list(range(len(class_names))) if every else [find_label(class_names, name)]
        if len(labels) + int(times) * len(each) > MOST_LABELS:
            raise ValueError(f"--label {text} has more than {MOST_LABELS:,} labels: shorten it.")
        labels += int(times) * each
    return tuple(labels)


def labels_for(class_names: tuple[str, ...], seeds: Sequence[int], pattern: Pattern | None) -> list[int] | None:
    """The label of each seed: of the pattern, or every class in turn; None for a model without classes."""
    if not class_names:
        return None
    taken = range(len(class_names)) if pattern is None else pattern
    return [taken[seed % len(taken)] for seed in seeds]


def label_tensor(
    class_names: tuple[str, ...], label: Label | Sequence[Label] | Tensor | None, count: int
) -> Tensor | None:
    """What a network takes as its labels, `(count,)` int64; None for no labels.

    Raises:
        ValueError: the model has no such class, or there are more or fewer labels than images.
    """
    if label is None:
        return None
    if isinstance(label, Tensor):
        label = label.tolist()
    labels = [label] * count if isinstance(label, int | str) else list(label)
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} images: give one label, or one for each image.")
    return torch.tensor([find_label(class_names, each) for each in labels])
