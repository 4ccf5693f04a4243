"""Hostile inputs of every kind: one sentence each, in bounded memory and time, measured in a process of its own."""

import pytest
from helpers.hostile import archives, arrays, images, models
from helpers.hostile.case import Case
from helpers.hostile.measured import measured

CASES = [*images.CASES, *archives.CASES, *arrays.CASES, *models.CASES]

MOST_MEBIBYTES = 1.5e9 / 2**20
MOST_SECONDS = 20


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in CASES],
)
def test_hostile_input_is_named_in_bounded_memory_and_time(case: Case) -> None:
    case.make()
    found = measured(case.read)
    assert case.matches(found.sentence), found.sentence
    assert found.mebibytes <= MOST_MEBIBYTES
    assert found.seconds <= MOST_SECONDS


def test_no_two_cases_have_the_same_name() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 100
