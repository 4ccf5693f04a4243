"""What follows from one set's features alone: computed once, and kept beside them.

So a reference set's covariance and neighbors are there when the next run, or the next sampler, is compared with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from undiffuse.features.cache import Features, Rows, readable
from undiffuse.features.image_sets import ImageSet
from undiffuse.metrics import frechet
from undiffuse.metrics import precision_recall as neighbors
from undiffuse.metrics.frechet import Gaussian
from undiffuse.metrics.precision_recall import K_DENSITY, K, Radii
from undiffuse.utils.files import atomic_path

T = TypeVar("T", Gaussian, Radii)


@dataclass(frozen=True)
class FeatureSet:
    """One of the two sets that are compared."""

    images: ImageSet
    of_images: Features
    device: torch.device

    @property
    def features(self) -> Rows:
        return self.of_images.features

    @cached_property
    def gaussian(self) -> Gaussian:
        return _kept(self.of_images.folder / "gaussian.npz", Gaussian, lambda: frechet.gaussian(self.features))

    @cached_property
    def radii(self) -> Radii:
        file = self.of_images.folder / f"radii-{K}-{K_DENSITY}.npz"
        return _kept(file, Radii, lambda: neighbors.radii(self.features, self.device))

    def __len__(self) -> int:
        return len(self.features)


def _kept(file: Path, kind: Callable[..., T], compute: Callable[[], T]) -> T:
    """The dataclass of tensors in `file`; where it is missing or damaged what `compute` makes, then kept there."""
    kept = readable(lambda: _loaded(file, kind))
    if kept is not None:
        return kept
    made: Any = compute()
    with atomic_path(file) as temporary:
        np.savez(temporary, **{part.name: getattr(made, part.name) for part in fields(made)})
    return made


def _loaded(file: Path, kind: Callable[..., T]) -> T:
    with np.load(file, allow_pickle=False) as kept:
        return kind(**{name: torch.from_numpy(kept[name]) for name in kept.files})
