"""A set of images with its features and what follows from them: computed once, and kept in the cache.

So the covariance and the neighbors of a reference set are there when the next run or sampler is compared with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from undiffuse.features.cache import Features, readable
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNetwork
from undiffuse.metrics import frechet, precision_recall
from undiffuse.metrics.frechet import Extrapolation, Gaussian
from undiffuse.metrics.precision_recall import K_DENSITY, K, Neighborhood, Radii
from undiffuse.utils.files import atomic_path
from undiffuse.utils.terminal import track

T = TypeVar("T", Gaussian, Radii)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """One of the two sets that are compared."""

    images: ImageSet
    network: FeatureNetwork
    extracted: Features
    device: torch.device
    """Where distances between features are computed."""

    @property
    def features(self) -> np.ndarray:
        """float32, `(images, dimensions)`, mapped from disk."""
        return self.extracted.features

    @property
    def logits(self) -> np.ndarray:
        """float32, `(images, classes)`; without columns if the network is not a classifier."""
        return self.extracted.logits

    @cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance of the features."""
        return _kept(self.extracted.folder / "gaussian.npz", Gaussian, lambda: frechet.gaussian(self.features))

    @cached_property
    def radii(self) -> Radii:
        """How far the nearest neighbors of each image are."""
        file = self.extracted.folder / f"radii-{K}-{K_DENSITY}.npz"
        return _kept(file, Radii, lambda: precision_recall.radii(self.features, self.device, watch=track))

    def __len__(self) -> int:
        return len(self.features)


@lru_cache(maxsize=2)
def neighborhood(real: FeatureSet, fake: FeatureSet) -> Neighborhood | None:
    """How the images of two sets are mixed in feature space; None if there are too few. Several metrics share it."""
    return precision_recall.neighborhood(real.features, fake.features, real.radii, fake.radii, fake.device, watch=track)


@lru_cache(maxsize=2)
def extrapolation(real: FeatureSet, fake: FeatureSet) -> Extrapolation | None:
    """The Frechet distance extrapolated to infinitely many samples; None if there are too few."""
    return frechet.extrapolate(real.gaussian, fake.features, watch=track)


def _kept(file: Path, kind: Callable[..., T], compute: Callable[[], T]) -> T:
    """The dataclass of tensors in `file`. If the file is missing or damaged, computes it and writes the file."""
    kept = readable(lambda: _loaded(file, kind))
    if kept is not None:
        return kept
    computed: Any = compute()
    with atomic_path(file) as temporary:
        np.savez(temporary, **{field.name: getattr(computed, field.name) for field in fields(computed)})
    return computed


def _loaded(file: Path, kind: Callable[..., T]) -> T:
    with np.load(file, allow_pickle=False) as kept:
        return kind(**{name: torch.from_numpy(kept[name]) for name in kept.files})
