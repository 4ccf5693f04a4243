"""Who watches a training run: observers, built in or your own.

Only rank 0 has observers. They take turns in the order in which they are listed, and must not use collectives: the
other processes have no observers to answer with.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from undiffuse.runs.run import Checkpoint, Run
from undiffuse.training.state import StepReport, TrainingState, rank_0_may_look
from undiffuse.utils.terminal import Meter
from undiffuse.utils.text import number
from undiffuse.utils.world import World


@dataclass(frozen=True)
class Event:
    """One training step that was just taken."""

    images: int
    """Images seen so far, over all processes and restarts."""
    report: StepReport
    progress: float
    """The fraction of the budget that is spent: from 0 to 1, or slightly more at the end."""
    seconds: float
    """Time spent training, over all restarts."""
    ends: bool
    """This is the last step: the budget is spent, or a stop was requested."""
    fails: bool
    """Too many batches in a row were skipped: training ends here with an error, and nothing is saved."""
    state: TrainingState
    """The network, its EMA and everything else that training changes. Look at it, but do not change it."""

    @property
    def loss(self) -> float:
        """Mean over the batch. Reading it waits for the step to finish on a GPU: do so now and then, not every time."""
        return self.report.loss

    @property
    def gradient_norm(self) -> float:
        """Before clipping; to be read like the loss."""
        return self.report.gradient_norm

    @property
    def skipped(self) -> bool:
        """The loss or the gradient was not finite, so the weights did not move; to be read like the loss."""
        return self.report.skipped

    @property
    def learning_rate(self) -> float:
        return self.report.learning_rate

    @property
    def network(self) -> nn.Module:
        """The network that is being trained."""
        return self.state.whole("network")

    @property
    def ema(self) -> nn.Module:
        """The same network with the EMA of the weights, which is what samples are made from."""
        return self.state.whole("ema")


class Observer:
    """Watches a training run. Override the methods that you need; by default they do nothing.

    An exception raised by a method ends training; the last checkpoint stays.

    Example:
        class BestLoss(undiffuse.Observer):
            best = float("inf")

            def step(self, event):
                self.best = min(self.best, event.loss)

        undiffuse.train("photos/", minutes=10, observers=[BestLoss()])
    """

    @property
    def key(self) -> str:
        """The name under which a checkpoint keeps this observer's state: the class's, unless overridden."""
        return type(self).__name__

    def begin(self, run: Run, state: TrainingState) -> None:
        """Called before the first step, of a new run or of one that resumes from `state`."""

    def resume(self, saved: dict[str, Any]) -> None:
        """Called after `begin` if the run resumes from a checkpoint with a `checkpoint_state` of this observer."""

    def step(self, event: Event) -> None:
        """Called after every training step."""

    def checkpoint_state(self) -> dict[str, Any]:
        """Called before a checkpoint is written: what the checkpoint keeps for `resume`, in JSON's types."""
        return {}

    def saved(self, checkpoint: Checkpoint) -> None:
        """Called after a checkpoint was written."""

    def end(self) -> None:
        """Called once training is over, whether it finished, was stopped or failed."""


class CallEachStep(Observer):
    """Makes an observer of a function."""

    def __init__(self, function: Callable[[Event], object]):
        self.function = function

    def step(self, event: Event) -> None:
        self.function(event)


def as_observer(observer: Observer | Callable[[Event], object]) -> Observer:
    """The observer, or one that calls the function with the event of every step."""
    return observer if isinstance(observer, Observer) else CallEachStep(observer)


@contextmanager
def watching(
    observers: Sequence[Observer], run: Run, state: TrainingState, checkpoint: Checkpoint | None, world: World
) -> Generator[None, None, None]:
    """Begins the observers, with what they kept in the checkpoint that training resumes from, and ends them after."""
    with ExitStack() as begun:
        with rank_0_may_look(state, world):
            for observer in observers:
                observer.begin(run, state)
                begun.callback(observer.end)
                if checkpoint is not None and observer.key in checkpoint.state:
                    observer.resume(checkpoint.state[observer.key])
        yield


class ProgressBar(Observer):
    """Shows images seen, images per second, the loss and the time left in the terminal."""

    def begin(self, run: Run, state: TrainingState) -> None:
        self.first_images, self.began = state.images, time.monotonic()
        self.meter = Meter("training", 1.0)
        self.meter.__enter__()

    def step(self, event: Event) -> None:
        speed = (event.images - self.first_images) / (time.monotonic() - self.began)
        note = lambda: f"{event.images:,} images, {number(speed, 2)}/s, loss {event.loss:.4f}"  # noqa: E731
        self.meter.reach(min(event.progress, 1.0), note)
        if event.ends:
            self.end()  # What is drawn in the end has a bar of its own.

    def end(self) -> None:
        self.meter.__exit__()
