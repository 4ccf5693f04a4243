"""One of several processes fails, at any moment: all end at once, one says why, and nothing is lost."""

import json
from functools import partial
from typing import Any

import pytest
from helpers import faults, forking

SOME = ("bad-file-decode-0", "kill-step-0", "disk-full-step-1")


def outcomes(**options: Any) -> list[dict[str, Any]]:
    (printed,) = forking.together(1, partial(faults.main, **options), seconds=3000)
    return [json.loads(line) for line in printed.splitlines()]


def test_all_processes_end_with_one_reason_and_resume_to_the_same_bits() -> None:
    found = outcomes(only=SOME)
    assert len(found) == len(SOME)
    assert [each for each in found if each["wrong"]] == []


def test_a_run_killed_five_times_equals_an_unbroken_one() -> None:
    (found,) = outcomes(kills=5)
    assert found["killed_at"] < 960, "it should have been killed before its end"
    assert found["wrong"] == []


def test_processes_without_a_shared_folder_train_as_rank_0_says() -> None:
    assert outcomes(own_folders=True) == [{"wrong": []}]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_every_fault_in_every_phase(processes: int) -> None:
    found = outcomes(processes=(processes,))
    assert len(found) == 50
    assert [each for each in found if each["wrong"]] == []
