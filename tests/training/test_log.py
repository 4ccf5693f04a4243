"""A line of the log: means over the batches that counted, and what a restart must not lose."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from undiffuse.config import Config
from undiffuse.runs.run import create_run
from undiffuse.training.held_out import HeldOut
from undiffuse.training.log import Log
from undiffuse.training.observers import Event
from undiffuse.training.state import StepReport, TrainingState, new_state


@pytest.fixture
def log(tiny: Config) -> Log:
    """One line every two batches."""
    held_out = Mock(spec=HeldOut)
    held_out.take.return_value = {}
    log = Log(held_out)
    log.begin(create_run(Path("run"), tiny), new_state(tiny, torch.device("cpu")))
    return log


@pytest.fixture
def see(log: Log, tiny: Config) -> Callable[[float, float], None]:
    state = Mock(spec=TrainingState, skipped=4, images=0)

    def step(loss: float, gradient_norm: float) -> None:
        state.images += 100
        report = StepReport(torch.tensor([loss, gradient_norm]), learning_rate=0.25)
        log.step(Event(state.images, report, 0.1, 12.3456, ends=False, fails=False, state=state))

    return step


def lines() -> list[dict]:
    return [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]


def test_means_are_over_the_finite_batches(log: Log, see: Callable[[float, float], None]) -> None:
    for loss, gradient_norm in ((1.0, 2.0), (4.0, 3.0), (math.nan, 1.0), (5.0, 7.0), (2.0, math.inf), (math.inf, 1.0)):
        see(loss, gradient_norm)
    log.end()
    expected = [(200, 2.5, 2.5), (400, 5.0, 7.0), (600, None, None)]
    assert [(line["images"], line["loss"], line["gradient_norm"]) for line in lines()] == expected
    assert lines()[0] | {"images": 0, "loss": 0, "gradient_norm": 0} == {
        "images": 0,
        "loss": 0,
        "gradient_norm": 0,
        "learning_rate": 0.25,
        "skipped_batches": 4,
        "seconds": 12.346,
    }


def test_a_line_comes_after_as_many_batches_as_were_asked_for(
    log: Log, see: Callable[[float, float], None], tiny: Config
) -> None:
    log.every = 4
    for loss in range(9):
        see(float(loss), 1.0)
    log.end()
    assert [(line["images"], line["loss"]) for line in lines()] == [(400, 1.5), (800, 5.5)]


def test_a_line_that_spans_a_restart_has_both_halves(
    log: Log, see: Callable[[float, float], None], tiny: Config
) -> None:
    see(1.0, 2.0)
    kept = log.checkpoint_state()
    assert kept == {"batches": 1, "finite": 1, "loss": 1.0, "gradient_norm": 2.0}
    log.resume(kept)
    see(4.0, 3.0)
    log.end()
    assert [line["loss"] for line in lines()] == [2.5]
