"""Whether a value can be compared with published ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.evaluation.metrics import Measurement
from undiffuse.evaluation.protocol import class_difference, verdict, warnings
from undiffuse.features.cache import Features
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import pixels_network

RELEASE = replace(pixels_network(), name="inception", distance="FID", weights="weights.pth", is_release=True)


def features(n: int, split: str, dataset: str = "", network: Any = RELEASE, **options: Any) -> FeatureSet:
    rows = np.empty((n, 1), np.float32)
    labels = options.pop("labels", np.full(n, -1))
    images = ImageSet(
        name="cifar10",
        split=split,
        content="",
        size=(32, 32),
        fit="none",
        total_images=n,
        labels=labels,
        class_names=options.pop("class_names", ()),
        read=lambda indices: rows,
        dataset=dataset,
        **options,
    )
    return FeatureSet(images, network, Features(rows, rows, False, Path()), torch.device("cpu"))


def measurement(
    n: int = 50_000, real: int = 50_000, split: str = "train", dataset: str = "cifar10", channels: int = 3, **fake: Any
) -> Measurement:
    return Measurement(features(real, split, dataset, channels=channels), features(n, "samples", **fake), ())


def test_the_published_protocol_is_comparable_and_says_what_is_not() -> None:
    comparable, why = verdict(measurement())
    assert comparable
    assert "split train" in why
    assert "VGG16" in why
    assert warnings([measurement()]) == []


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (measurement(n=10_000), "10,000 samples instead of the 50,000 in papers, and fewer raise it"),
        (measurement(n=60_000), "more lower it"),
        (measurement(real=10_000, split="test"), "split test, 10,000 images"),
        (measurement(split="test"), "the reference is cifar10, split test, 50,000 images at 32x32"),
        (measurement(real=49_999), "the reference is cifar10, split train, 49,999 images"),
        (measurement(dataset=""), "the reference is cifar10"),  # A folder of that name, JPEG perhaps.
        (measurement(channels=1), "the reference was not read as RGB"),
        (measurement(resized=True), "the samples were resized to 32x32"),
        (
            measurement(network=replace(RELEASE, is_release=False)),
            "weights.pth are not those of the published Inception",
        ),
        (
            measurement(network=replace(RELEASE, name="dinov2", distance="FD-DINOv2")),
            "FD-DINOv2 is measured with dinov2, so it is not an FID",
        ),
    ],
)
def test_every_departure_is_named(measured: Measurement, says: str) -> None:
    comparable, why = verdict(measured)
    assert not comparable
    assert says in why


def test_too_few_images_in_either_set_give_a_warning() -> None:
    assert "2,047 samples" in warnings([measurement(n=2047)])[0]
    assert "100 real images of split test" in warnings([measurement(), measurement(real=100, split="test")])[0]


@pytest.mark.parametrize(("period", "difference"), [(2, 0.0), (4, 0.25)])
def test_samples_of_other_classes_give_a_warning(period: int, difference: float) -> None:
    names, n = ("cats", "dogs"), 4000
    real = features(n, "train", labels=np.arange(n) % 2, class_names=names)
    fake = features(n, "samples", labels=(np.arange(n) % period != 0).astype(int), class_names=names)
    sentences = warnings([Measurement(real, fake, ())])
    assert len(sentences) == (difference > 0)
    assert not difference or "25% of the samples would have to change theirs" in sentences[0]
    assert class_difference(real.images, features(n, "samples").images) == 0  # No classes at all.
