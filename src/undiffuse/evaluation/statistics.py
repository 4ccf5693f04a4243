"""What follows from one set's features alone: computed once, and kept beside them.

So a reference set's covariance and neighbours are there when the next run, or the next sampler, is compared with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from undiffuse.evaluation import frechet, neighbours
from undiffuse.evaluation.features import Features, Rows, readable
from undiffuse.evaluation.frechet import Gaussian
from undiffuse.evaluation.neighbours import K_DENSITY, K, Radii
from undiffuse.evaluation.picture_sets import PictureSet
from undiffuse.files import atomic_path

T = TypeVar("T", Gaussian, Radii)


@dataclass(frozen=True)
class Side:
    """One of the two sets that are compared."""

    pictures: PictureSet
    of_pictures: Features
    device: torch.device

    @property
    def features(self) -> Rows:
        return self.of_pictures.features

    @cached_property
    def gaussian(self) -> Gaussian:
        return _kept(self.of_pictures.folder / "gaussian.npz", Gaussian, lambda: frechet.gaussian(self.features))

    @cached_property
    def radii(self) -> Radii:
        file = self.of_pictures.folder / f"radii-{K}-{K_DENSITY}.npz"
        return _kept(file, Radii, lambda: neighbours.radii(self.features, self.device))

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
