"""The metrics, one row each: a metric takes the features of two sets of images and gives one or more values.

A metric of your own is a function of two arrays of features, or a `Metric`:

    def mean_distance(real, fake):  # (n, d) and (m, d), float32
        return float(np.linalg.norm(real.mean(axis=0) - fake.mean(axis=0)))

    undiffuse.measure("photos/", "samples/", metrics=[mean_distance])["mean_distance"].value
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from undiffuse.evaluation.feature_sets import FeatureSet, extrapolation, neighborhood
from undiffuse.metrics import precision_recall
from undiffuse.metrics.frechet import frechet_distance
from undiffuse.metrics.inception_score import inception_score
from undiffuse.metrics.kernel import kernel_distance
from undiffuse.metrics.precision_recall import K_DENSITY, K, Neighborhood
from undiffuse.utils.terminal import log, track

INCEPTION_SCORE = "Inception Score"


@dataclass(frozen=True)
class Value:
    """One number that a metric computed."""

    name: str
    value: float
    spread: float | None = None
    """How far chance may move it; None if that is not known."""
    spread_is: str = ""
    """What the spread is, such as "standard error"."""
    note: str = ""


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Example:
        def norm_ratio(real, fake):  # Two `FeatureSet`s: .features (n, d), .logits, .images, .gaussian, .radii
            norms = [np.linalg.norm(each.features, axis=1).mean() for each in (real, fake)]
            return [Value("norm ratio", float(norms[1] / norms[0]), note="1 is best")]

        undiffuse.evaluate(run, metrics=[undiffuse.Metric("norm ratio", norm_ratio)])["norm ratio"]
    """

    name: str
    compute: Callable[[FeatureSet, FeatureSet], Sequence[Value]]
    """From the real and the generated images; no values if there are too few images."""


MetricLike = Metric | Callable[[np.ndarray, np.ndarray], float]
"""A row of the table, or a function f(real_features, fake_features) -> float, named by its own name."""


@dataclass(frozen=True)
class MetricValue:
    """A value in an evaluation, with the images that it depends on."""

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
class Measurement:
    """Generated images measured against one set of real images."""

    real: FeatureSet
    fake: FeatureSet
    values: tuple[MetricValue, ...]

    def find(self, metric: str) -> MetricValue | None:
        """The value of that name, or None."""
        return next((value for value in self.values if value.metric == metric), None)


def compute_metrics(real: FeatureSet, fake: FeatureSet, metrics: Sequence[Metric]) -> Measurement:
    """Computes every metric. Values that are not finite are left out."""
    values = []
    for metric in metrics:
        for each in metric.compute(real, fake):
            if not math.isfinite(each.value):
                log.warning(f"{each.name} is left out: it is {each.value} for these images.")
                continue
            spread_is = each.spread_is if each.spread is not None else ""
            sizes = len(real), len(fake), real.images.split
            values.append(MetricValue(each.name, float(each.value), each.spread, spread_is, *sizes, each.note))
    return Measurement(real, fake, tuple(values))


def frechet(real: FeatureSet, fake: FeatureSet) -> list[Value]:
    """The Frechet distance (Heusel et al. 2017) and its extrapolation (Chong & Forsyth 2020)."""
    name, line = fake.network.distance, extrapolation(real, fake)
    distance = frechet_distance(real.gaussian, fake.gaussian)
    scatter = None if line is None else line.scatter
    values = [Value(name, distance, scatter, "sd about the line over 1/N", "biased upward, more so for few images")]
    if line is not None:
        error, error_is = line.standard_error, "standard error of the line's fit only"
        values.append(Value(f"{name}-infinity", line.at_infinity, error, error_is, "extrapolated in 1/N"))
    return values


def kernel(real: FeatureSet, fake: FeatureSet) -> list[Value]:
    """The kernel distance (Binkowski et al. 2018)."""
    score = kernel_distance(real.features, fake.features, watch=track)
    if score is None:
        return []
    # If every subset is the whole set, their values do not vary.
    sd = score.sd if score.subset_size < max(len(real), len(fake)) else None
    spread_is = f"sd of {score.subsets} subsets of {score.subset_size}"
    return [Value(fake.network.kernel, score.mean, sd, spread_is, "unbiased in N")]


def inception(real: FeatureSet, fake: FeatureSet) -> list[Value]:
    """The Inception Score (Salimans et al. 2016), if the network has class logits."""
    score = inception_score(fake.logits) if fake.logits.shape[1] else None
    if score is None:
        return []
    return [Value(INCEPTION_SCORE, score.mean, score.sd, f"sd of {score.splits} splits", "of the samples only")]


def neighbors(real: FeatureSet, fake: FeatureSet) -> list[Value]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), AuthPct."""
    found = neighborhood(real, fake)
    if found is None:
        return []
    return [
        Value("precision", found.precision, *_binomial_error(found.precision, len(fake)), note=f"k = {K}"),
        Value("recall", found.recall, *_binomial_error(found.recall, len(real)), note=f"k = {K}"),
        Value("density", found.density, found.density_error, "standard error", note=f"k = {K_DENSITY}"),
        Value("coverage", found.coverage, *_binomial_error(found.coverage, len(real)), note=f"k = {K_DENSITY}"),
        _auth_pct(found, len(fake)),
    ]


METRICS = (
    Metric("Frechet distance", frechet),
    Metric("kernel distance", kernel),
    Metric(INCEPTION_SCORE, inception),
    Metric("precision, recall, density, coverage, AuthPct", neighbors),
)


def with_own(own: Sequence[MetricLike]) -> tuple[Metric, ...]:
    """The table with the user's own metrics after it.

    Raises:
        ValueError: one has no name of its own.
    """
    rows = list(METRICS)
    for metric in own:
        row = metric if isinstance(metric, Metric) else _from_function(metric)
        if row.name in [known.name for known in rows]:
            raise ValueError(f"Two metrics are called {row.name}: give yours another name.")
        rows.append(row)
    return tuple(rows)


def _from_function(function: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise ValueError(f"The metric {function!r} has no name: write it with def, or pass an undiffuse.Metric.")
    return Metric(name, lambda real, fake: [Value(name, float(function(real.features, fake.features)))])


def class_precision(measurement: Measurement) -> list[tuple[str, int, int, float]]:
    """For each class its name, real images, generated images, and precision among the real images of that class.

    Classes are the same if they have the same name; those with too few images in either set are left out.
    """
    real, fake = measurement.real, measurement.fake
    known, rows = {name: label for label, name in enumerate(real.images.class_names)}, []
    for label, name in enumerate(fake.images.class_names):
        in_real = np.flatnonzero(real.images.labels == known[name]) if name in known else np.empty(0, int)
        in_fake = np.flatnonzero(fake.images.labels == label)
        if min(len(in_real), len(in_fake)) <= K_DENSITY:
            continue
        x, y = real.features[in_real], fake.features[in_fake]
        radii_x, radii_y = precision_recall.radii(x, fake.device), precision_recall.radii(y, fake.device)
        found = precision_recall.neighborhood(x, y, radii_x, radii_y, fake.device)
        assert found is not None, "there are enough of each"
        rows.append((name, len(in_real), len(in_fake), found.precision))
    return rows


def _auth_pct(found: Neighborhood, count: int) -> Value:
    error, error_is = _binomial_error(found.authentic, count)
    return Value("AuthPct", 100 * found.authentic, None if error is None else 100 * error, error_is, note="k = 1")


def _binomial_error(fraction: float, count: int) -> tuple[float | None, str]:
    if fraction in (0.0, 1.0):
        return None, ""  # The formula would claim certainty.
    return (fraction * (1 - fraction) / count) ** 0.5, "binomial standard error"
