"""What a metric depends on, and whether it can be compared with published values."""

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from undiffuse.evaluation.metrics import Measurement
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNetwork
from undiffuse.utils.text import size_text

PUBLISHED_COUNT = 50_000
"""Samples behind a published FID."""

FULL_RANK_COUNT = 2048
"""With fewer images, the covariance of Inception's 2,048 features does not even have full rank."""

PACKAGES = ("undiffuse", "torch", "torchvision", "torch-fidelity", "timm", "numpy", "scipy")

CIFAR10_IMAGES = 50_000

MOST_CLASS_DIFFERENCE = 0.05
"""If a larger fraction of the samples has the wrong class, a warning says so."""


def package_versions() -> dict[str, str]:
    """Versions of the packages that a metric depends on, if they are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def network_protocol(network: FeatureNetwork) -> dict[str, Any]:
    """Which feature network, with which weights."""
    return {
        "features": network.name,
        "feature_weights": network.weights,
        "feature_weights_sha256": network.weights_sha256 or "none",
        "feature_weights_from": "--weights" if network.given else "the default location",
        "feature_weights_are_the_published": network.is_release,
        "resize": network.resize,
        "pixels": "uint8, rounded to 0 to 255",
    }


def images_protocol(images: ImageSet) -> dict[str, Any]:
    """Which images, and how they were read."""
    return {
        "data": images.name,
        "split": images.split,
        "images": len(images),
        "size": size_text(images.size),
        "fit": images.fit,
        "channels": images.channels,
        "resized": images.resized,
        "content": images.content,
    }


def reference_protocol(measurement: Measurement) -> dict[str, Any]:
    """Which real images, and whether the distance from them can be compared with published values."""
    return {
        **images_protocol(measurement.real.images),
        "features_from_cache": measurement.real.extracted.cached,
        "comparable_with_published": not departures(measurement),
    }


def departures(measurement: Measurement) -> list[str]:
    """How this measurement differs from the way FIDs are published; empty if it does not."""
    network, real, fake = measurement.fake.network, measurement.real.images, measurement.fake.images
    reasons = []
    if network.name != "inception":
        reasons.append(f"{network.distance} is measured with {network.name}, so it is not an FID")
    elif not network.is_release:
        reasons.append(f"the weights {network.weights} are not those of the published Inception")
    if len(fake) != PUBLISHED_COUNT:
        effect = "fewer raise it" if len(fake) < PUBLISHED_COUNT else "more lower it"
        reasons.append(f"there are {len(fake):,} samples instead of the {PUBLISHED_COUNT:,} in papers, and {effect}")
    if (real.dataset, real.split, len(real), real.size) != ("cifar10", "train", CIFAR10_IMAGES, (32, 32)):
        reasons.append(
            f"the reference is {real.description} at {size_text(real.size)}; the only reference with published values "
            "that undiffuse knows is --data cifar10, 50,000 training images at 32x32"
        )
    elif real.channels != 3:
        reasons.append("the reference was not read as RGB")
    if fake.resized:
        reasons.append(f"the samples were resized to {size_text(fake.size)}")
    elif fake.channels != 3:
        reasons.append("the samples are not RGB")
    return reasons


def verdict(measurement: Measurement) -> tuple[bool, str]:
    """Whether the distance can be compared with published values, and a sentence that says why or why not."""
    reasons = departures(measurement)
    if not reasons:
        return True, (
            "The FID against split train can be compared with published values for CIFAR-10: 50,000 samples against "
            "the 50,000 training images, the published Inception, TensorFlow's resize, uint8 pixels. The other metrics "
            "cannot: FID-infinity is an extrapolation, and for precision and recall the original paper (Kynkaanniemi "
            "et al. 2019) and torch-fidelity's default use VGG16 features."
        )
    return False, f"Not comparable with published values: {'; '.join(reasons)}."


def warnings(measurements: Sequence[Measurement]) -> list[str]:
    """What readers must know before they believe a metric."""
    sets = {"samples": measurements[0].fake}
    sets |= {f"real images of split {each.real.images.split}": each.real for each in measurements}
    few = [f"{len(images):,} {name}" for name, images in sets.items() if len(images) < FULL_RANK_COUNT]
    sentences = []
    if few:
        sentences.append(
            f"With {' and '.join(few)}, fewer than {FULL_RANK_COUNT:,}, much of the distance is bias: compare it only "
            "at equal N, or use the kernel distance, which is unbiased."
        )
    for each in measurements:
        difference = class_difference(each.real.images, each.fake.images)
        if difference > MOST_CLASS_DIFFERENCE:
            sentences.append(
                f"Classes are not as frequent among the samples as among the real images of split "
                f"{each.real.images.split} ({difference:.0%} of the samples would have to change theirs): every metric "
                "includes that difference."
            )
    return sentences


def class_difference(real: ImageSet, fake: ImageSet) -> float:
    """Total variation distance between the class frequencies, by class name; 0 if either set has no classes."""
    frequencies = [
        {name: float(np.mean(images.labels == label)) for label, name in enumerate(images.class_names)}
        for images in (real, fake)
    ]
    if not all(frequencies):
        return 0.0
    names = {*frequencies[0], *frequencies[1]}
    return sum(abs(frequencies[0].get(name, 0.0) - frequencies[1].get(name, 0.0)) for name in names) / 2
