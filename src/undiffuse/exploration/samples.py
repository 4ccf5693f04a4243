"""A few images that stand for all, and what augmentation makes of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from undiffuse.data.augmentation import AugmentationConfig, augmentation, random_transforms
from undiffuse.data.pixels import to_nchw, to_nhwc, to_pixels
from undiffuse.data.store import Store
from undiffuse.utils.randomness import generator

SAMPLES = 16

SHOWN = AugmentationConfig(flip=True, crop_scale=0.6)
"""The augmentation in the report: strong enough to be visible."""


@dataclass(frozen=True)
class Samples:
    """Images before and after augmentation."""

    indices: tuple[int, ...]
    names: tuple[str, ...]
    """The class of each; its number in the store if there are no classes."""
    before: UInt8[np.ndarray, "b h w c"]
    after: UInt8[np.ndarray, "b h w c"]
    transforms: tuple[str, ...]
    """What was done, in order, as torchvision's transforms describe themselves."""


def draw_samples(store: Store, config: AugmentationConfig = SHOWN, seed: int = 0, count: int = SAMPLES) -> Samples:
    """Draws images, evenly over the classes and at random within them, and augments each once as training would."""
    indices = _draw_indices(store.labels, count, seed)
    before = store.read(indices)
    x = augmentation(config, store.size)(to_nchw(before), seed, indices)
    labels = store.labels[indices].tolist()
    return Samples(
        indices=tuple(indices),
        names=tuple(
            store.class_names[label] if label >= 0 else f"no. {i}" for label, i in zip(labels, indices, strict=True)
        ),
        before=before,
        after=to_nhwc(to_pixels(x)),
        transforms=(*map(str, random_transforms(config, store.size)), "x / 127.5 - 1"),
    )


def _draw_indices(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """At most `count` indices, the same number from each class as far as possible."""
    shuffled = torch.randperm(len(labels), generator=generator("exploration samples", seed)).numpy()
    present = np.unique(labels)
    if len(present) > count:
        present = present[np.linspace(0, len(present) - 1, count).round().astype(int)]
    by_class = [shuffled[labels[shuffled] == label] for label in present]
    # In rounds that take one image of each class; then sorted by class.
    rounds = [(turn, place) for place, members in enumerate(by_class) for turn in range(min(len(members), count))]
    taken = sorted(sorted(rounds)[:count], key=lambda pick: (pick[1], pick[0]))
    return [int(by_class[place][turn]) for turn, place in taken]
