"""Labels: by class name, by index, or none; and which seed gets which."""

from collections.abc import Sequence

import torch
from torch import Tensor

from undiffuse.diffusion.denoiser import NO_LABEL

Label = int | str
"""A class by index or name; -1 or "none" for no label."""


def find_label(class_names: tuple[str, ...], label: Label) -> int:
    """The index of a class given by index or name; -1 for "none".

    Raises:
        ValueError: the model has no such class, or no classes.
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
    shown = ", ".join(class_names[:12]) + (", ..." if len(class_names) > 12 else "")
    raise ValueError(
        f"--label {text}: this model has no such class; choose 0 to {len(class_names) - 1} or one of {shown}."
    )


def labels_for(class_names: tuple[str, ...], seeds: Sequence[int], label: int | None) -> list[int] | None:
    """The label of each seed: the one given, else every class in turn; None for a model without classes."""
    if not class_names:
        return None
    return [seed % len(class_names) if label is None else label for seed in seeds]


def label_tensor(
    class_names: tuple[str, ...], label: Label | Sequence[Label] | Tensor | None, count: int
) -> Tensor | None:
    """What a network takes as its labels, `(count,)` int64; None for no labels.

    Raises:
        ValueError: the model has no such class, or there are more or fewer labels than images.
    """
    if label is None or isinstance(label, Tensor):
        return label
    labels = [label] * count if isinstance(label, int | str) else list(label)
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} images: give one label, or one for each image.")
    return torch.tensor([find_label(class_names, each) for each in labels])
