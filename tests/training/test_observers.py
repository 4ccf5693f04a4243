"""What observers of training see, and what they find again after a restart."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from undiffuse.config import Config
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.runs.run import Checkpoint, Run, open_run
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.observers import Event, Observer
from undiffuse.training.state import TrainingState
from undiffuse.utils.errors import WorkFailed

Train = Callable[..., bool]


class Diary(Observer):
    """Notes everything, and keeps the images it has seen over restarts."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.seen: list[int] = []

    def begin(self, run: Run, state: TrainingState) -> None:
        self.notes.append(f"begin {run.name} at {state.images}")

    def resume(self, saved: dict[str, Any]) -> None:
        self.notes.append("resume")
        self.seen = saved["seen"]

    def step(self, event: Event) -> None:
        self.seen.append(event.images)

    def checkpoint_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def saved(self, checkpoint: Checkpoint) -> None:
        self.notes.append(f"saved {checkpoint.images}")

    def end(self) -> None:
        self.notes.append("end")


def with_budget(config: Config, images: int) -> Config:
    return replace(config, training=replace(config.training, total_images=images))


def test_a_function_sees_every_step(tiny: Config, run_training: Train) -> None:
    events: list[Event] = []
    assert run_training(Path("run"), with_budget(tiny, 400), observers=[events.append])
    assert [event.images for event in events] == [100, 200, 300, 400]
    assert [event.progress for event in events] == [0.25, 0.5, 0.75, 1.0]
    assert [event.ends for event in events] == [False, False, False, True]
    assert not any(event.skipped or event.fails for event in events)
    assert all(earlier.seconds < later.seconds for earlier, later in pairwise(events))
    line = open_run(Path("run")).log_lines()[0]  # The mean over two steps.
    assert line["loss"] == pytest.approx((events[0].loss + events[1].loss) / 2)
    assert line["learning_rate"] == events[1].learning_rate
    weights, ema = (dict(network.named_parameters()) for network in (events[-1].network, events[-1].ema))
    (checkpoint,) = open_run(Path("run")).checkpoints()
    assert all(tensor.equal(weights[name]) for name, tensor in checkpoint.tensors("network").items())
    assert all(tensor.equal(ema[name]) for name, tensor in checkpoint.tensors("ema").items())


def test_an_observer_finds_its_state_again(tiny: Config, run_training: Train) -> None:
    first, second = Diary(), Diary()
    run_training(Path("run"), with_budget(tiny, 300), CheckpointOptions(checkpoint_images=200), [first])
    run_training(Path("run"), with_budget(tiny, 500), observers=[second])
    assert first.notes == ["begin run at 0", "saved 200", "saved 300", "end"]
    assert second.notes == ["begin run at 300", "resume", "saved 500", "end"]
    assert second.seen == [100, 200, 300, 400, 500], "each step once"


def test_an_observer_may_join_a_run_later(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 300))
    diary = Diary()
    run_training(Path("run"), with_budget(tiny, 400), observers=[diary])
    assert diary.notes == ["begin run at 300", "saved 400", "end"]


def test_an_exception_ends_training_and_every_observer(tiny: Config, run_training: Train) -> None:
    def refuse(event: Event) -> None:
        if event.images == 300:
            raise LookupError("mine")

    diary = Diary()
    with pytest.raises(LookupError, match="mine"):
        run_training(Path("run"), tiny, CheckpointOptions(checkpoint_images=200), [diary, refuse])
    assert diary.notes == ["begin run at 0", "saved 200", "end"]
    assert run_training(Path("run"), with_budget(tiny, 500), observers=[diary])
    assert diary.seen == [100, 200, 300, 400, 500], "what came after the checkpoint was forgotten"


def test_observers_see_why_training_fails(tiny: Config, run_training: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = DiffusionConfig().make_loss()
    monkeypatch.setattr(
        DiffusionConfig, "make_loss", lambda config, stage: lambda *a, **named: usual(*a, **named) * float("nan")
    )
    events: list[Event] = []
    with pytest.raises(WorkFailed, match="1,000 images"):
        run_training(Path("run"), tiny, CheckpointOptions(checkpoint_images=1000), [events.append])
    assert all(event.skipped for event in events)
    assert [event.fails for event in events] == [False] * 9 + [True]
    assert open_run(Path("run")).checkpoints() == []


def test_observers_that_keep_a_state_need_different_keys(tiny: Config, run_training: Train) -> None:
    with pytest.raises(ValueError, match="different keys"):
        run_training(Path("run"), tiny, observers=[Diary(), Diary()])
    other = type("Other", (Diary,), {"key": "other"})()
    assert run_training(Path("run"), with_budget(tiny, 100), observers=[Diary(), other])
