"""Were training images learned by heart? Each sample's nearest ones, beside a control that cannot have been."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.features.image_sets import ImageSet
from undiffuse.metrics import precision_recall as neighbors
from undiffuse.metrics.precision_recall import Nearest
from undiffuse.report import grids

LEAST_SCALE = 0.1
"""Of the control's median distance: training images that lie nearer to one another than that are copies."""

SHOWN = 10
"""Samples on the sheet: half the first ones, half those that are nearest to a training image for where it lies."""


@dataclass(frozen=True)
class Memorization:
    """Distances to the nearest training image, in one space."""

    space: str
    control: str
    """What the second distances are those of."""
    nearest: Nearest
    samples: Float[Tensor, " n"]
    """From each sample."""
    held_out: Float[Tensor, " m"]
    """From each real image of the control."""
    authentic: float
    """Share of samples that are farther from their nearest training image than that is from its own."""
    suspicion: Float[Tensor, " n"]
    """A sample's distance over how far apart training images lie where it is: small is suspicious."""

    @property
    def ratio(self) -> float:
        """Median distance of the samples over the control's: well below 1 says that samples are too near."""
        return (self.samples.median() / self.held_out.median().clamp(min=1e-12)).item()

    @property
    def nearer_than_control(self) -> float:
        """Share of the samples that are nearer than all but 1% of the control; 1% is what chance gives."""
        return (self.samples < self.held_out.quantile(0.01)).double().mean().item()


def memorization(
    space: str, train: FeatureSet, samples: FeatureSet, test: FeatureSet | None, known: Nearest | None = None
) -> Memorization:
    """`test` are real images that training never saw; without them each training image's distance to the next.

    `known` are the samples' nearest, where they were found before.
    """
    found = known or neighbors.nearest(samples.features, train.features, train.device)
    own = train.radii.first
    if test is not None:
        distance = neighbors.nearest(test.features, train.features, train.device).distance
        held_out, control = distance, "held-out real images"
    else:
        held_out, control = own, "training images, each to the next"
    between = own[found.index]
    # Not `between`: of an image that is in the training set twice that is 0, and its copy would look innocent.
    around = train.radii.k_density[found.index].clamp(min=(LEAST_SCALE * held_out.median()).clamp(min=1e-12).item())
    return Memorization(
        space=space,
        control=control,
        nearest=found,
        samples=found.distance,
        held_out=held_out,
        authentic=(found.distance > between).double().mean().item(),
        suspicion=found.distance / around,
    )


def sheet(samples: ImageSet, train: ImageSet, in_spaces: list[Memorization]) -> tuple[Image.Image, list[int]]:
    """Samples in the first row; below each its nearest training image, a row a space. Also: which samples."""
    worst = in_spaces[0].suspicion.argsort()[: SHOWN // 2].tolist()
    first = [i for i in range(len(samples)) if i not in worst][: SHOWN - len(worst)]
    shown = first + worst
    rows = [samples.read(shown)]
    rows += [train.read(space.nearest.index[shown].numpy()) for space in in_spaces]
    tiles = torch.from_numpy(np.concatenate(rows)).permute(0, 3, 1, 2)
    return grids.grid(tiles, columns=len(shown), gap=2), shown
