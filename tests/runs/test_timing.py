"""How long samples took: kept beside them, one record for each time that some were made."""

from dataclasses import replace
from pathlib import Path

import pytest

from undiffuse.runs.timing import FILE, Timing, record, timing_of

TIMING = Timing(0, 9, 0.25, "cpu", threads=2, processes=1, batch=5)


def test_the_newest_record_of_all_the_samples_counts(tmp_path: Path) -> None:
    assert timing_of(tmp_path, [0, 9]) is None
    later, again = replace(TIMING, first_seed=5, last_seed=20), replace(TIMING, seconds_per_image=0.5)
    for each in (TIMING, later, again):
        record(tmp_path, each)
    assert timing_of(tmp_path, range(10)) == again
    assert timing_of(tmp_path, range(5, 10)) == again
    assert timing_of(tmp_path, range(5, 21)) == later
    assert timing_of(tmp_path, range(21)) is None, "not made in one go"
    assert timing_of(tmp_path, range(20, 22)) is None


@pytest.mark.parametrize("content", ["", "{", "3", '[{"first_seed": 0}]', '[{"unknown": 0}]'])
def test_a_damaged_file_says_nothing_and_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    assert timing_of(tmp_path, [0]) is None
    record(tmp_path, TIMING)
    assert timing_of(tmp_path, [0]) == TIMING


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "2 CPU threads, batches of 5"),
        ({"threads": 1}, "1 CPU thread, batches of 5"),
        ({"device": "NVIDIA H200"}, "NVIDIA H200, batches of 5"),
        ({"processes": 4, "threads": 1}, "4 processes with 1 CPU thread, batches of 5"),
    ],
)
def test_a_machine_is_told_in_words(changes: dict[str, int | str], said: str) -> None:
    assert replace(TIMING, **changes).machine == said
