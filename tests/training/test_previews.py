"""Previews come at fixed parts of the budget, but never take more than their share of the time."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from undiffuse.config import Config
from undiffuse.data.store import Store
from undiffuse.runs.run import Run
from undiffuse.training import previews
from undiffuse.training.observers import Event
from undiffuse.training.previews import Previews
from undiffuse.training.state import StepReport, TrainingState, new_state


@pytest.fixture
def state(tiny: Config) -> TrainingState:
    return new_state(tiny, torch.device("cpu"))


def event_at(progress: float, state: TrainingState) -> Event:
    return Event(
        images=int(2000 * progress),
        report=StepReport(torch.tensor([1.0, 1.0]), learning_rate=1e-3),
        progress=progress,
        seconds=0.0,
        ends=progress >= 1,
        fails=False,
        state=state,
    )


@pytest.fixture
def watched(
    tiny: Config, store: Store, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], list[float]]:
    """Trains for 1,000 seconds of a made-up clock, each preview taking so long; returns when they were made."""

    def train(preview_seconds: float) -> list[float]:
        clock, made = [0.0], []
        monkeypatch.setattr(previews.time, "monotonic", lambda: clock[0])

        def save(run: Run, event: Any, store: Store) -> None:
            made.append(clock[0])
            clock[0] += preview_seconds

        monkeypatch.setattr(previews, "save_previews", save)
        observer = Previews(0.0, store)
        observer.begin(Run(Path("run"), tiny), state)
        for step in range(1, 101):
            clock[0] += 10
            observer.step(event_at(step / 100, state))
        return made

    return train


def test_quick_previews_come_after_every_fifth(watched: Callable) -> None:
    assert watched(0.0) == [200, 400, 600, 800, 1000]


def test_slow_previews_wait_until_they_are_affordable(watched: Callable) -> None:
    made = watched(30.0)
    assert made[0] == 200
    # The second is due at 40%, but two of them are 5% of 1,200 seconds: only the one at the end is left.
    assert made[1:] == [1030.0]


def test_in_between_they_come_later(watched: Callable) -> None:
    made = watched(12.0)
    assert made[0] == 200
    assert made[1] >= 24 / 0.05
    assert all(12 * (i + 1) <= 0.05 * seconds for i, seconds in enumerate(made[:-1]) if i)


def test_a_compiled_network_is_previewed_without_compiling_again(
    tiny: Config, store: Store, state: TrainingState
) -> None:
    compiled: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append("once more")
        raise RuntimeError("The rest need not be compiled.")

    state.network.compile(backend=backend)
    previews.save_previews(Run(Path("run"), tiny), event_at(0.5, state), store)
    assert len(list(Path("run/previews").iterdir())) == 2
    assert not compiled
    with suppress(BackendCompilerFailed):  # Where training was compiled before, torch goes on without a word.
        state.network(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    assert compiled


def test_only_the_last_previews_have_a_bar_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tiny: Config, store: Store, state: TrainingState
) -> None:
    bars: list[str] = []

    def track(items: Any, what: str, total: int) -> Any:
        bars.append(what)
        return items

    monkeypatch.setattr(previews, "track", track)
    previews.save_previews(Run(Path("run"), tiny), event_at(0.5, state), store)
    assert bars == []
    previews.save_previews(Run(Path("run"), tiny), event_at(1.0, state), store)
    assert bars == ["preview of the ema", "preview of the network"]
