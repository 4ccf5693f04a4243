"""Did the model memorize training images? Each sample's nearest training image, compared with a control."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from undiffuse.data.pixels import to_nchw
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.feature_sets import FeatureSet, neighborhood
from undiffuse.evaluation.metrics import Measurement
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import pixels_network
from undiffuse.metrics import precision_recall
from undiffuse.metrics.memorization import Memorization, memorization
from undiffuse.metrics.precision_recall import Nearest
from undiffuse.report import grids
from undiffuse.utils.errors import Skipped
from undiffuse.utils.terminal import track
from undiffuse.utils.world import World

SHOWN = 10
"""Samples on the sheet: half of them the first ones, half the most suspicious ones."""


@dataclass(frozen=True)
class FeatureMemorization:
    """Distances to the nearest training image, in one feature space."""

    features: str
    """Such as "pixels" or "inception features"."""
    control: str
    """Which images the control is."""
    found: Memorization


def find_memorization(
    measurements: Sequence[Measurement], context: EvaluationContext
) -> list[FeatureMemorization] | Skipped:
    """Looks for copies of the first measurement's real images, in the features and in the pixels.

    The control is the second measurement's real images, if there are any, else each training image among the others.
    """
    train, fake = measurements[0].real, measurements[0].fake
    test = measurements[1].real if len(measurements) > 1 else None
    mixed = neighborhood(train, fake)
    if mixed is None:
        return Skipped("Not checked: there are too few images.")
    network = train.network
    if network.name == "pixels":
        return [_in_features("pixels", train, fake, test, mixed.nearest)]
    alone = replace(context, network=pixels_network(), world=World.alone(context.world.device))
    train_pixels, fake_pixels = alone.feature_set(train.images), alone.feature_set(fake.images)
    test_pixels = alone.feature_set(test.images) if test is not None else None
    return [
        _in_features(f"{network.name} features", train, fake, test, mixed.nearest),
        _in_features("pixels", train_pixels, fake_pixels, test_pixels),
    ]


def neighbor_sheet(
    samples: ImageSet, train: ImageSet, spaces: Sequence[FeatureMemorization]
) -> tuple[Image.Image, list[int]]:
    """A sheet of samples, and below each its nearest training image, one row for each feature space.

    Also returns which samples are shown: the first ones, then the most suspicious ones.
    """
    suspicious = spaces[0].found.suspicion.argsort()[: SHOWN // 2].tolist()
    first = [i for i in range(len(samples)) if i not in suspicious][: SHOWN - len(suspicious)]
    shown = first + suspicious
    rows = [samples.read(shown)]
    rows += [train.read(space.found.nearest.index[shown].numpy()) for space in spaces]
    return grids.grid_for_page(to_nchw(np.concatenate(rows)), columns=len(shown), gap=2), shown


def _in_features(
    features: str, train: FeatureSet, samples: FeatureSet, test: FeatureSet | None, nearest: Nearest | None = None
) -> FeatureMemorization:
    """`nearest` is the nearest training image to each sample, if it is known already."""
    found = nearest or _nearest(samples, train)
    held_out = _nearest(test, train).distance if test is not None else None
    control = "training images, each to the next" if test is None else "held-out real images"
    return FeatureMemorization(features, control, memorization(found, train.radii, held_out))


def _nearest(images: FeatureSet, train: FeatureSet) -> Nearest:
    return precision_recall.nearest(images.features, train.features, train.device, watch=track)
