"""The best of several is the one with the smallest distance."""

from unittest.mock import Mock

import pytest
from helpers.features import feature_set, random_pixels

from undiffuse.evaluation.compare import _Progress
from undiffuse.evaluation.comparison import Comparison
from undiffuse.evaluation.entry import Candidate, Entry, Repeat
from undiffuse.evaluation.metrics import Measurement, MetricValue
from undiffuse.utils.terminal import Meter, progress_to

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


def test_one_bar_shows_the_parts_as_they_take_their_shares_of_the_time() -> None:
    seen: list[float] = []
    with progress_to(lambda what, fraction: seen.append(fraction)):
        progress = _Progress([1.0, 3.0, 4.0])
        with progress.meter:
            for title in ("first", "second", "third"):
                with progress.of_next(title), Meter("sampling", 10) as sampling:
                    sampling.reach(5, "half")
    assert seen == pytest.approx([0.5 / 8, 1 / 8, 2.5 / 8, 4 / 8, 6 / 8, 1])
