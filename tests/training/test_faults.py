"""One of several processes fails, at any moment: all end at once, one says why, and nothing is lost."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).parents[1] / "helpers" / "faults.py"


def outcomes(*options: str) -> list[dict[str, Any]]:
    command: Sequence[str] = [sys.executable, str(HARNESS), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


SOME = ("bad-file-decode-0", "disk-full-step-1", "kill-step-0", "kill-checkpoint-1", "disk-full-checkpoint-0")


def test_all_processes_end_with_one_reason_and_resume_to_the_same_bits() -> None:
    found = outcomes("--only", *SOME)
    assert len(found) == len(SOME)
    assert [each for each in found if each["wrong"]] == []


def test_a_run_killed_five_times_equals_an_unbroken_one() -> None:
    (found,) = outcomes("--kills", "5")
    assert found["killed_at"] < 960, "it should have been killed before its end"
    assert found["wrong"] == []


def test_processes_without_a_shared_folder_train_as_rank_0_says() -> None:
    assert outcomes("--own-folders") == [{"wrong": []}]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_every_fault_in_every_phase(processes: int) -> None:
    found = outcomes("--processes", str(processes))
    assert len(found) == 50
    assert [each for each in found if each["wrong"]] == []
