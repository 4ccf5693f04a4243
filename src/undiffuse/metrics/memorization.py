"""Did the model memorize training images? Compares samples with a control that cannot have been memorized."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.metrics.precision_recall import Nearest, Radii

SMALLEST_SCALE = 0.1
"""As a fraction of the control's median distance: training images closer to each other than this are duplicates."""


@dataclass(frozen=True)
class Memorization:
    """Distances to the nearest training image."""

    nearest: Nearest
    """The nearest training image to each sample."""
    samples: Float[Tensor, " n"]
    """Distance of each sample."""
    control: Float[Tensor, " m"]
    """Distance of each image of the control."""
    authentic: float
    """Fraction of samples that are farther from their nearest training image than that one is from its own nearest."""
    suspicion: Float[Tensor, " n"]
    """Distance of each sample in units of how far apart training images are there: small is suspicious."""

    @property
    def ratio(self) -> float:
        """Median distance of the samples over the control's: well below 1 means that samples are too close."""
        return (self.samples.median() / self.control.median().clamp(min=1e-12)).item()

    @property
    def nearer_than_control(self) -> float:
        """Fraction of samples that are closer than the control's first percentile; 1% is expected by chance."""
        return (self.samples < self.control.quantile(0.01)).double().mean().item()


def memorization(nearest: Nearest, train_radii: Radii, held_out: Float[Tensor, " m"] | None = None) -> Memorization:
    """Compares the samples' distances with those of images that cannot have been memorized.

    Args:
        nearest: The nearest training image to each sample.
        train_radii: How far each training image's own neighbors are.
        held_out: Distances to the nearest training image from real images that the model was not trained on. Without
            them the control is each training image's distance to the next one.
    """
    control = train_radii.first if held_out is None else held_out
    # Not the distance to the next training image: for a duplicate that is 0, and its copy would look innocent.
    smallest = (SMALLEST_SCALE * control.median()).clamp(min=1e-12)
    scale = torch.maximum(train_radii.k_density[nearest.index], smallest)
    return Memorization(
        nearest=nearest,
        samples=nearest.distance,
        control=control,
        authentic=(nearest.distance > train_radii.first[nearest.index]).double().mean().item(),
        suspicion=nearest.distance / scale,
    )
