"""The rows of a comparison: which is the best, and what several ranges of seeds say together."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
from helpers.features import feature_set, random_pixels

from undiffuse.evaluation.compare import _Progress
from undiffuse.evaluation.comparison import Comparison
from undiffuse.evaluation.entry import Candidate, Entry, Repeat
from undiffuse.evaluation.metrics import Measurement, MetricValue
from undiffuse.runs.timing import Timing
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


def repeat(seed: int, timing: Timing | None = None, **values: float) -> Repeat:
    """Samples of 4 seeds from `seed`, with these values of metrics."""
    found = tuple(MetricValue(name, each, 0.25, "sd of subsets", 4, 4, "all") for name, each in values.items())
    return Repeat(range(seed, seed + 4), Measurement(REAL, FAKE, found), timing)


def repeated(*repeats: Repeat) -> Entry:
    return Entry(Mock(spec=Candidate), {}, repeats)


def test_ranges_of_seeds_have_means_with_their_standard_deviation() -> None:
    found = repeated(repeat(0, precision=0.5), repeat(4, precision=0.7), repeat(8, precision=0.6)).find("precision")
    assert found is not None
    assert (found.value, found.spread) == (pytest.approx(0.6), pytest.approx(0.1))
    assert found.spread_is == "sd of 3 ranges of seeds"


def test_a_metric_that_one_range_of_seeds_lacks_has_no_mean() -> None:
    entry = repeated(repeat(0, precision=0.5, recall=0.5), repeat(4, precision=0.7))
    assert [value.metric for value in entry.values] == ["precision"]


def test_only_distances_have_their_spread_in_the_table() -> None:
    entry = repeated(repeat(0, None, **{"FD-pixels": 3.0, "KD-pixels": 2.0}, precision=0.5))
    assert [entry.cell(name) for name in ("FD-pixels", "KD-pixels", "precision", "recall")] == [
        "3 ± 0.25",
        "2 ± 0.25",
        "0.5",
        "",
    ]


def test_the_speed_is_known_if_all_ranges_were_made_on_the_same_machine() -> None:
    one, other = (Timing(0, 3, seconds, "cpu", 1, 1, 4) for seconds in (1.0, 3.0))
    assert repeated(repeat(0, one), repeat(4, other)).seconds == 2.0
    assert repeated(repeat(0, one), repeat(4)).seconds is None, "one was not made in one go"
    assert repeated(repeat(0, one), repeat(4, replace(other, threads=2))).seconds is None
