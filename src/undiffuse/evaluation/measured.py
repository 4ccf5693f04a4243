"""The metrics of two sets of images, computed once: kept in the cache with the features that they follow from."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.evaluation.metrics import METRICS, Measurement, Metric, MetricValue, compute_metrics
from undiffuse.features.cache import readable
from undiffuse.utils.files import write_atomically

FORMAT = 1
"""Part of the file's name: raise it when the same features would get other values."""


def measured(real: FeatureSet, fake: FeatureSet, metrics: Sequence[Metric]) -> Measurement:
    """What `compute_metrics` finds. Only a user's own metrics are computed again: their code may have changed."""
    file = fake.extracted.folder / f"metrics-{FORMAT}-{real.extracted.folder.name}.json"
    kept = readable(lambda: _loaded(file))
    if kept is None:
        kept = compute_metrics(real, fake, METRICS).values
        write_atomically(file, json.dumps([asdict(value) for value in kept]) + "\n")
    # The same images may have been another split's when they were measured before.
    values = tuple(replace(value, split=real.images.split) for value in kept)
    own = compute_metrics(real, fake, [metric for metric in metrics if metric not in METRICS])
    return Measurement(real, fake, values + own.values)


def _loaded(file: Path) -> tuple[MetricValue, ...]:
    return tuple(MetricValue(**value) for value in json.loads(file.read_text(encoding="utf-8")))
