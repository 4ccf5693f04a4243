"""Were training pictures learnt by heart? Each sample's nearest ones, beside a control that cannot have been."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from undiffuse import pictures
from undiffuse.evaluation import neighbours
from undiffuse.evaluation.neighbours import Nearest
from undiffuse.evaluation.picture_sets import PictureSet
from undiffuse.evaluation.statistics import Side

LEAST_SCALE = 0.1
"""Of the control's median distance: training pictures that lie nearer to one another than that are copies."""

SHOWN = 10
"""Samples on the sheet: half the first ones, half those that are nearest to a training picture for where it lies."""


@dataclass(frozen=True)
class Memorization:
    """Distances to the nearest training picture, in one space."""

    space: str
    control: str
    """What the second distances are those of."""
    nearest: Nearest
    samples: Float[Tensor, " n"]
    """From each sample."""
    held_out: Float[Tensor, " m"]
    """From each real picture of the control."""
    authentic: float
    """Share of samples that are farther from their nearest training picture than that is from its own."""
    suspicion: Float[Tensor, " n"]
    """A sample's distance over how far apart training pictures lie where it is: small is suspicious."""

    @property
    def ratio(self) -> float:
        """Median distance of the samples over the control's: well below 1 says that samples are too near."""
        return (self.samples.median() / self.held_out.median().clamp(min=1e-12)).item()

    @property
    def nearer_than_control(self) -> float:
        """Share of the samples that are nearer than all but 1% of the control; 1% is what chance gives."""
        return (self.samples < self.held_out.quantile(0.01)).double().mean().item()


def memorization(
    space: str, train: Side, samples: Side, test: Side | None, known: Nearest | None = None
) -> Memorization:
    """`test` are real pictures that training never saw; without them each training picture's distance to the next.

    `known` are the samples' nearest, where they were found before.
    """
    found = known or neighbours.nearest(samples.features, train.features, train.device)
    own = train.radii.first
    if test is not None:
        distance = neighbours.nearest(test.features, train.features, train.device).distance
        held_out, control = distance, "held-out real pictures"
    else:
        held_out, control = own, "training pictures, each to the next"
    between = own[found.index]
    # Not `between`: of a picture that is in the training set twice that is 0, and its copy would look innocent.
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


def sheet(samples: PictureSet, train: PictureSet, in_spaces: list[Memorization]) -> tuple[Image.Image, list[int]]:
    """Samples in the first row; below each its nearest training picture, a row a space. Also: which samples."""
    worst = in_spaces[0].suspicion.argsort()[: SHOWN // 2].tolist()
    first = [i for i in range(len(samples)) if i not in worst][: SHOWN - len(worst)]
    shown = first + worst
    rows = [samples.read(shown)]
    rows += [train.read(space.nearest.index[shown].numpy()) for space in in_spaces]
    tiles = torch.from_numpy(np.concatenate(rows)).permute(0, 3, 1, 2)
    return pictures.grid(tiles, columns=len(shown), gap=2), shown
