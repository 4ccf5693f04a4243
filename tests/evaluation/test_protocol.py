"""Whether a figure may stand beside published ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.evaluation.metrics import Comparison
from undiffuse.evaluation.protocol import class_difference, verdict, warnings
from undiffuse.features.cache import Features
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import pixels_net

RELEASE = replace(pixels_net(), name="inception", distance="FID", weights="weights.pth", is_release=True)


def side(
    n: int, split: str, dataset: str, channels: int = 3, resized: bool = False, labels=None, names=()
) -> FeatureSet:
    rows = np.empty((n, 1), np.float32)
    labels = np.full(n, -1) if labels is None else labels
    images = ImageSet(
        "cifar10",
        split,
        "",
        (32, 32),
        "none",
        n,
        labels,
        names,
        lambda i: rows,
        dataset,
        channels=channels,
        resized=resized,
    )
    return FeatureSet(images, Features(rows, rows, False, Path()), torch.device("cpu"))


def compared(
    n: int = 50_000, real: int = 50_000, split: str = "train", dataset: str = "cifar10", channels: int = 3, **fake
) -> Comparison:
    return Comparison(side(real, split, dataset, channels), side(n, "samples", "", **fake), (), None, None)


def test_the_published_protocol_is_comparable_and_says_what_is_not() -> None:
    comparable, why = verdict(RELEASE, compared())
    assert comparable
    assert "split train" in why
    assert "VGG16" in why
    assert warnings([compared()]) == []


@pytest.mark.parametrize(
    ("net", "comparison", "says"),
    [
        (RELEASE, compared(n=10_000), "10,000 samples where papers take 50,000, and fewer raise it"),
        (RELEASE, compared(n=60_000), "more lower it"),
        (RELEASE, compared(real=10_000, split="test"), "split test, 10,000 images"),
        (RELEASE, compared(dataset=""), "the reference is cifar10"),  # A folder of that name, JPEG perhaps.
        (RELEASE, compared(channels=1), "the reference was not read as RGB"),
        (RELEASE, compared(resized=True), "the samples were brought to 32x32 from other sizes"),
        (replace(RELEASE, is_release=False), compared(), "weights.pth are not those of the published Inception"),
        (
            replace(RELEASE, name="dinov2", distance="FD-DINOv2"),
            compared(),
            "FD-DINOv2 is measured with dinov2, no FID",
        ),
    ],
)
def test_every_departure_is_named(net, comparison: Comparison, says: str) -> None:
    comparable, why = verdict(net, comparison)
    assert not comparable
    assert says in why


def test_too_few_are_warned_of_on_either_side() -> None:
    assert "2,047 samples" in warnings([compared(n=2047)])[0]
    assert "100 real images of split test" in warnings([compared(), compared(real=100, split="test")])[0]


def test_samples_with_other_classes_than_the_real_images_are_warned_of() -> None:
    names, n = ("cats", "dogs"), 4000
    real = side(n, "train", "", labels=np.arange(n) % 2, names=names)
    for share, differ in ((2, 0.0), (4, 0.25)):
        fake = side(n, "samples", "", labels=(np.arange(n) % share != 0).astype(int), names=names)
        said = warnings([Comparison(real, fake, (), None, None)])
        assert len(said) == (differ > 0)
        assert not differ or "25% of the samples would have to change theirs" in said[0]
    assert class_difference(real.images, side(n, "samples", "").images) == 0  # No classes at all.
