"""What a figure depends on, and whether it may stand beside published ones."""

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from undiffuse.evaluation.metrics import Comparison
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNet

PUBLISHED_COUNT = 50_000
"""Samples behind a published FID."""

FEWEST = 2048
"""Below as many the covariance of Inception's 2,048 features has not even full rank."""

PACKAGES = ("undiffuse", "torch", "torchvision", "torch-fidelity", "timm", "numpy", "scipy")

CIFAR10_IMAGES = 50_000

CLASSES_DIFFER = 0.05
"""A larger share of samples of the wrong class is warned of."""


def versions() -> dict[str, str]:
    """Of the packages that a figure passes through, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def of_features(net: FeatureNet) -> dict[str, Any]:
    return {
        "features": net.name,
        "feature_weights": net.weights,
        "feature_weights_sha256": net.weights_sha256 or "none",
        "feature_weights_from": "--weights" if net.given else "where they are by default",
        "feature_weights_are_the_published": net.is_release,
        "resize": net.resize,
        "pixels": "uint8, rounded to 0 to 255",
    }


def of_images(images: ImageSet) -> dict[str, Any]:
    """Which they are, and how they were read."""
    return {
        "data": images.name,
        "split": images.split,
        "images": len(images),
        "size": f"{images.size[0]}x{images.size[1]}",
        "fit": images.fit,
        "channels": images.channels,
        "resized": images.resized,
        "content": images.content,
    }


def of_reference(net: FeatureNet, comparison: Comparison) -> dict[str, Any]:
    return {
        **of_images(comparison.real.images),
        "features_from_cache": comparison.real.of_images.cached,
        "comparable_with_published": not why_not_comparable(net, comparison),
    }


def why_not_comparable(net: FeatureNet, comparison: Comparison) -> list[str]:
    """What differs from how FIDs are published; empty where nothing does."""
    real, fake = comparison.real.images, comparison.fake.images
    reasons = []
    if net.name != "inception":
        reasons.append(f"{net.distance} is measured with {net.name}, no FID")
    elif not net.is_release:
        reasons.append(f"the weights {net.weights} are not those of the published Inception")
    if len(fake) != PUBLISHED_COUNT:
        effect = "fewer raise it" if len(fake) < PUBLISHED_COUNT else "more lower it"
        reasons.append(f"there are {len(fake):,} samples where papers take {PUBLISHED_COUNT:,}, and {effect}")
    if (real.dataset, real.split, len(real), real.size) != ("cifar10", "train", CIFAR10_IMAGES, (32, 32)):
        reasons.append(
            f"the reference is {real.what} at {real.size[0]}x{real.size[1]}; the only one known to this program to "
            "have published figures is --data cifar10, 50,000 training images at 32x32"
        )
    elif real.channels != 3:
        reasons.append("the reference was not read as RGB")
    if fake.resized:
        reasons.append(f"the samples were brought to {fake.size[0]}x{fake.size[1]} from other sizes")
    elif fake.channels != 3:
        reasons.append("the samples are not RGB")
    return reasons


def verdict(net: FeatureNet, comparison: Comparison) -> tuple[bool, str]:
    """Whether the distance is comparable with published ones, and a sentence that says why or why not."""
    reasons = why_not_comparable(net, comparison)
    if not reasons:
        return True, (
            "The FID against split train is comparable with published ones of CIFAR-10: 50,000 samples against the "
            "50,000 training images, the published Inception, TensorFlow's resize, uint8 pixels. Other figures are "
            "not: FID-infinity is an extrapolation, and the original paper (Kynkaanniemi et al. 2019) and "
            "torch-fidelity's default take VGG16 features for precision and recall."
        )
    return False, f"Not comparable with published figures: {'; '.join(reasons)}."


def warnings(comparisons: Sequence[Comparison]) -> list[str]:
    """What the reader must know before believing a figure."""
    sides = {"samples": comparisons[0].fake}
    sides |= {f"real images of split {each.real.images.split}": each.real for each in comparisons}
    few = [f"{len(side):,} {who}" for who, side in sides.items() if len(side) < FEWEST]
    said = []
    if few:
        said.append(
            f"With {' and '.join(few)}, fewer than {FEWEST:,}, much of the distance is bias: compare it at equal N "
            "only, or look at the kernel distance, which has none."
        )
    for each in comparisons:
        differ = class_difference(each.real.images, each.fake.images)
        if differ > CLASSES_DIFFER:
            said.append(
                f"Classes are not as frequent among the samples as among the real images of split "
                f"{each.real.images.split} ({differ:.0%} of the samples would have to change theirs): part of every "
                "figure is that difference."
            )
    return said


def class_difference(real: ImageSet, fake: ImageSet) -> float:
    """Total variation distance between the shares of the classes, by their names; 0 where either has none."""
    shares = [
        {name: float(np.mean(of_set.labels == label)) for label, name in enumerate(of_set.class_names)}
        for of_set in (real, fake)
    ]
    if not all(shares):
        return 0.0
    return sum(abs(shares[0].get(name, 0.0) - shares[1].get(name, 0.0)) for name in {*shares[0], *shares[1]}) / 2
