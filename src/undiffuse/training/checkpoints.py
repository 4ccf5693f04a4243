"""Checkpoints while training, and the way back from one, exact to the last bit."""

import copy
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from undiffuse.runs.run import Checkpoint, NonFiniteError, Run
from undiffuse.training.observers import Event, Observer
from undiffuse.training.optimizers import load_optimizer_tensors
from undiffuse.training.state import TrainingState
from undiffuse.utils.device import upload
from undiffuse.utils.sharding import load_whole
from undiffuse.utils.world import World

CHECKPOINT_SECONDS = 300


@dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written, and how many are kept."""

    keep: int = 3
    """How many checkpoints are kept: the newest ones."""
    checkpoint_images: int | None = None
    """Images from one checkpoint to the next; None writes one every five minutes."""


class Checkpoints(Observer):
    """Saves the training state and that of the `observers`, at intervals and at the end."""

    def __init__(self, options: CheckpointOptions, observers: Sequence[Observer]):
        self.options, self.observers = options, observers
        keys = [each.key for each in observers if type(each).checkpoint_state is not Observer.checkpoint_state]
        if len(set(keys)) < len(keys):
            raise ValueError(f"Observers that keep a state need different keys, not {keys}: override `key` in one.")

    def begin(self, run: Run, state: TrainingState) -> None:
        self.run, self.last_images, self.last_time = run, state.images, time.monotonic()
        self.writer = ThreadPoolExecutor(1)
        self.writing: Future[Checkpoint] | None = None

    def step(self, event: Event) -> None:
        if self.writing is not None and self.writing.done():
            self._finish()
        if event.fails or not (event.ends or self._due(event.images)):
            return
        self._finish()
        self.last_images, self.last_time = event.images, time.monotonic()
        self._save(event.state)
        if event.ends:
            self._finish()

    def end(self) -> None:
        with suppress(NonFiniteError, OSError):  # Training has failed before, and its reason is the one to be told.
            self._finish()
        self.writer.shutdown()

    def _finish(self) -> None:
        """Waits for the checkpoint that is being written, if one is, and tells the observers.

        Raises:
            NonFiniteError, OSError: it could not be written; see `Run.save`.
        """
        if self.writing is not None:
            checkpoint, self.writing = self.writing.result(), None
            for observer in self.observers:
                observer.saved(checkpoint)

    def _due(self, images: int) -> bool:
        every = self.options.checkpoint_images
        if every is None:
            return time.monotonic() - self.last_time >= CHECKPOINT_SECONDS
        return images // every > self.last_images // every

    def _save(self, state: TrainingState) -> None:
        """Takes a snapshot, which a thread writes while training goes on."""
        state.settle()
        kept = {observer.key: saved for observer in self.observers if (saved := observer.checkpoint_state())}
        counters = {"seconds": state.seconds, "skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
        snapshot = {
            part: {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.gather(part)}
            for part, tensors in state.parts().items()
            if tensors
        }
        about = copy.deepcopy({**counters, **kept})
        self.writing = self.writer.submit(self.run.save, state.images, snapshot, about, self.options.keep)


def restore(state: TrainingState, checkpoint: Checkpoint | None, world: World) -> bool:
    """Sets the state in all processes back to where rank 0's checkpoint was written; False if it has none.

    Rank 0 alone reads: in the folders of the others there may be another checkpoint, or nothing.

    Raises:
        ValueError: it holds EMA weights alone.
    """
    about = world.share(None if checkpoint is None else (checkpoint.images, checkpoint.state, checkpoint.parts))
    if about is None:
        return False
    if "network" not in about[2]:  # A model that comes with the package, or an EMA of another length.
        raise ValueError(
            "This run holds only EMA weights, without what training would need to go on: give another --out, and "
            "--from to start with these weights."
        )
    state.images, counters, parts = about
    for name in ("seconds", "skipped", "skipped_in_a_row"):
        setattr(state, name, counters[name])

    def tensors(part: str) -> Iterator[tuple[str, Tensor]]:
        return world.each_tensor(checkpoint.tensors(part) if checkpoint is not None else {})

    load_whole(state.network, tensors("network"))
    load_whole(state.ema, tensors("ema"))
    if state.images:  # With another run's weights, optimizers and sigma sampler begin afresh.
        load_optimizer_tensors(state.optimizers, tensors("optimizer"))
        if state.sigma_sampler.tensors():
            learned = {name: upload(tensor, world.device) for name, tensor in tensors("sigma_sampler")}
            state.sigma_sampler.load(learned)
        if state.loss_scale is not None and "loss_scale" in parts:  # The run may have begun where bf16 is fast.
            state.loss_scale.load(dict(tensors("loss_scale")))
    return True
