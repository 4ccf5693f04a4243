"""The best of several is the one with the smallest distance."""

from unittest.mock import Mock

from helpers.features import feature_set, random_pixels

from undiffuse.evaluation.comparison import Comparison
from undiffuse.evaluation.entry import Candidate, Entry, Repeat
from undiffuse.evaluation.metrics import Measurement, MetricValue

REAL, FAKE = (feature_set(random_pixels(4, seed)) for seed in (0, 1))


def entry(*distances: float) -> Entry:
    """An entry with this distance, or where it was not finite without one."""
    values = tuple(MetricValue("FD-pixels", each, None, "", 4, 4, "all") for each in distances)
    return Entry(Mock(spec=Candidate), {}, (Repeat(range(4), Measurement(REAL, FAKE, values), None),))


def test_the_best_has_the_smallest_distance() -> None:
    entries = tuple(entry(distance) for distance in (3.0, 1.0, 2.0))
    assert Comparison(entries).best is entries[1]


def test_a_distance_that_could_not_be_computed_is_not_the_best() -> None:
    entries = entry(), entry(3.0), entry(2.0), entry()
    assert Comparison(entries).best is entries[2]
    assert entries[0].value("FD-pixels") is None
