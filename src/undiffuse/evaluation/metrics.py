"""Every figure of one comparison, from one pass of features."""

import math
from dataclasses import dataclass

import numpy as np

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.features.networks import FeatureNet
from undiffuse.metrics import frechet, scores
from undiffuse.metrics import precision_recall as neighbors
from undiffuse.metrics.precision_recall import K_DENSITY, K, Neighborhood


@dataclass(frozen=True)
class MetricValue:
    """One number, with what makes it one."""

    metric: str
    value: float
    spread: float | None
    spread_is: str
    """What the spread is; empty without one."""
    n_real: int
    n_fake: int
    split: str
    """Of the real images."""
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Fakes against one set of real images."""

    real: FeatureSet
    fake: FeatureSet
    values: tuple[MetricValue, ...]
    neighborhood: Neighborhood | None
    extrapolation: frechet.Extrapolation | None


def compare(net: FeatureNet, real: FeatureSet, fake: FeatureSet) -> Comparison:
    """All figures. What too few images leave undefined is left out."""
    line = frechet.extrapolate(real.gaussian, fake.features)
    among = neighbors.neighborhood(real.features, fake.features, real.radii, fake.radii, fake.device)
    distance = frechet.frechet_distance(real.gaussian, fake.gaussian)
    values: list[MetricValue] = []

    def add(metric: str, value: float, spread: float | None = None, spread_is: str = "", note: str = "") -> None:
        if math.isfinite(value):
            sizes = len(real), len(fake), real.images.split
            values.append(MetricValue(metric, value, spread, spread_is if spread is not None else "", *sizes, note))

    scatter = None if line is None else line.scatter
    add(net.distance, distance, scatter, "sd about the line over 1/N", "biased upward, more so for few")
    if line is not None:
        add(
            f"{net.distance}-infinity",
            line.at_infinity,
            line.standard_error,
            "standard error of the line's fit alone",
            "extrapolated in 1/N",
        )
    kernel = scores.kernel_distance(real.features, fake.features)
    if kernel is not None:
        # Where every subset is the whole set, they do not spread.
        sd = kernel.sd if kernel.part_size < max(len(real), len(fake)) else None
        add(net.kernel, kernel.mean, sd, f"sd of {kernel.parts} subsets of {kernel.part_size}", "unbiased in N")
    inception = scores.inception_score(fake.of_images.logits) if fake.of_images.logits.shape[1] else None
    if inception is not None:
        add("Inception Score", inception.mean, inception.sd, f"sd of {inception.parts} splits", "of the samples alone")
    if among is not None:
        for name, value, n, k in (
            ("precision", among.precision, len(fake), K),
            ("recall", among.recall, len(real), K),
            ("density", among.density, len(fake), K_DENSITY),
            ("coverage", among.coverage, len(real), K_DENSITY),
            ("AuthPct", 100 * among.authentic, len(fake), 1),
        ):
            add(name, value, *_error(name, value, n, among), note=f"k = {k}")
    return Comparison(real, fake, tuple(values), among, line)


def class_precision(comparison: Comparison) -> list[tuple[str, int, int, float]]:
    """For each class its name, real images, fakes, and precision among the real images of that class alone.

    Classes are the same where they have the same name; those with too few images on either side are left out.
    """
    real, fake = comparison.real, comparison.fake
    known, rows = {name: label for label, name in enumerate(real.images.class_names)}, []
    for label, name in enumerate(fake.images.class_names):
        of_real = np.flatnonzero(real.images.labels == known[name]) if name in known else np.empty(0, int)
        of_fake = np.flatnonzero(fake.images.labels == label)
        if min(len(of_real), len(of_fake)) <= K_DENSITY:
            continue
        x, y = real.features[of_real], fake.features[of_fake]
        radii_x, radii_y = neighbors.radii(x, fake.device), neighbors.radii(y, fake.device)
        among = neighbors.neighborhood(x, y, radii_x, radii_y, fake.device)
        assert among is not None, "there are enough of each"
        rows.append((name, len(of_real), len(of_fake), among.precision))
    return rows


def _error(name: str, value: float, n: int, among: Neighborhood) -> tuple[float | None, str]:
    if name == "density":
        return among.density_error, "standard error"
    share = value / 100 if name == "AuthPct" else value
    if share in (0.0, 1.0):
        return None, ""  # The formula would claim certainty.
    error = (share * (1 - share) / n) ** 0.5
    return (100 * error if name == "AuthPct" else error), "binomial standard error"
