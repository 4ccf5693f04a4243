"""A training run in its folder: begun or resumed, watched, saved, and stopped without loss."""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from undiffuse.config import Config, SamplingConfig, TrainingConfig, differences, to_json
from undiffuse.data.batches import Batch, ImageStream, batches, split_held_out
from undiffuse.data.store import Store
from undiffuse.runs.find import is_run
from undiffuse.runs.run import NonFiniteError, Run, create_run, open_run
from undiffuse.runs.told import save_told
from undiffuse.training.checkpoints import CheckpointOptions, Checkpoints, restore
from undiffuse.training.choices import as_begun, chosen
from undiffuse.training.held_out import HeldOut
from undiffuse.training.log import Log
from undiffuse.training.loop import training_steps
from undiffuse.training.observers import Event, Observer, ProgressBar, as_observer, watching
from undiffuse.training.previews import Previews
from undiffuse.training.signals import StopRequest
from undiffuse.training.start import Start, save_start, weights_for
from undiffuse.training.state import StepReport, TrainingState, new_state, rank_0_may_look
from undiffuse.utils.conditions import as_conditions
from undiffuse.utils.device import compile_network, loader_workers
from undiffuse.utils.errors import PeerFailed, WorkFailed, sentence
from undiffuse.utils.files import remove_unfinished, write_atomically
from undiffuse.utils.names import Compile
from undiffuse.utils.terminal import log
from undiffuse.utils.world import World

MOST_SKIPPED_IN_A_ROW = 10
NOT_FINITE = (
    f"the loss or its gradient was not finite {MOST_SKIPPED_IN_A_ROW} batches in a row; start again with a lower "
    "--set optimizer.learning_rate, or --precision fp32"
)

MAY_CHANGE = {
    "attributes.table",
    "data.data",
    "data.data_root",
    "image_condition.pairs",
    "origin.class_names",
    "origin.learning_rate",
    "origin.run",
    "training.activation_checkpointing",
    "training.shard_weights",
    "training.total_images",
    "training.total_minutes",
    "training.microbatch",
    *(f"sampling.{field.name}" for field in fields(SamplingConfig)),
}
"""Settings that may differ when a run is resumed: the budget may grow, the same images, table and source run may have
moved, older versions recorded less of that run, and what saves memory changes no result."""


def begin_or_resume(folder: Path, config: Config, total_images: int, world: World, start: Start | None = None) -> Run:
    """The run in `folder`, created if there is none there or one without a checkpoint.

    A new run starts with the EMA weights of `start`, or else with random ones. What the config leaves open is chosen
    for `total_images` when the run is created, and kept when it is resumed.

    Raises:
        ValueError: the run there has other settings, or something else is there.
    """
    if not is_run(folder):
        weights = None if start is None else weights_for(config, start)
        run = create_run(folder, chosen(config, total_images, world.device, world.size))
        if weights is not None:
            save_start(run, weights)
        return run
    run = open_run(folder, type(config.network))
    config = as_begun(config, run.config)
    if run.checkpoints() and config.origin and run.config.origin and config.origin.run == run.config.origin.run:
        config = replace(config, origin=run.config.origin)  # That run may have trained on since this one began.
    if not run.config.data_content:
        raise ValueError(
            f"{folder.absolute()} holds an imported model, without the images and the optimizer that training would "
            "need to go on: give another --out to start from scratch."
        )
    changed = {name: values for name, values in differences(run.config, config).items() if name not in MAY_CHANGE}
    if run.checkpoints() and "data_content" in changed:
        raise ValueError(
            f"The images at {config.data.data} are not the ones that {folder.absolute()} was trained on: bring those "
            "back to resume it, or give another --out to start from scratch."
        )
    if run.checkpoints():
        _check_condition(run, config, changed)
    if run.checkpoints() and changed:
        name, (before, after) = next(iter(changed.items()))
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(
            f"{folder.absolute()} holds a run with other settings ({name} {before} -> {after}{more}): give the same "
            "settings to resume it, or another --out to start from scratch."
        )
    if config != run.config:
        write_atomically(folder / "config.json", to_json(config))
    run = Run(folder, config)
    if start is not None and not run.checkpoints():
        save_start(run, weights_for(config, start))
    return run


def _check_condition(run: Run, config: Config, changed: Iterable[str]) -> None:
    """Raises ValueError if the network was told something else in training."""
    folder, before = run.folder.absolute(), run.config
    scratch = "or give another --out to start from scratch."

    def kind(of: Config) -> tuple[bool, str | None, int | None]:
        image = of.image_condition
        return of.attributes is not None, image.kind if image else None, image.low_res if image else None

    if kind(before) != kind(config):
        if before.attributes is None and before.image_condition is None:
            raise ValueError(f"{folder} was trained without --condition: leave it out to resume it, {scratch}")
        given = before.condition or "TABLE.csv"
        raise ValueError(f"{folder} was trained with --condition {given}: give that again to resume it, {scratch}")
    if "image_condition.content" in changed and config.image_condition:
        raise ValueError(
            f"The images in {config.image_condition.pairs} are not those that {folder} was told of in training: bring "
            f"those back to resume it, {scratch}"
        )
    if any(name.startswith("attributes") for name in changed):
        raise ValueError(
            f"--condition is not the table that {folder} was trained with: bring that back to resume it, {scratch}"
        )


def train_run(
    run: Run,
    store: Store,
    world: World,
    stop: StopRequest,
    options: CheckpointOptions = CheckpointOptions(),  # noqa: B008
    observers: Sequence[Observer | Callable[[Event], object]] = (),
    compile: Compile = "auto",
) -> bool:
    """Trains until the budget is spent (then returns True) or a stop is requested; everything is saved either way.

    All processes call this with the same arguments. Rank 0 alone has observers: progress bar, log, the given ones,
    checkpoints, previews. `compile` speeds the network up with torch.compile; auto does so on CUDA.

    Raises:
        WorkFailed: loss or weights are not finite, memory ran out or the disk is full; names the last good checkpoint.
    """
    config = run.config
    state = new_state(config, world.device, world)
    if store.table and world.is_main:
        training, _ = split_held_out(len(store), config.training.held_out_images)
        save_told(run, as_conditions(store.condition(training)))
    checkpoint = run.last_good() if world.is_main else None
    if restore(state, checkpoint, world):
        log.info(f"Resuming at {state.images:,} images." if state.images else _started_from(config))
    budget = _Budget(config.training, state, world)
    already = budget.progress
    if already >= 1:
        log.info("The budget of this run is spent. To train it further, give more --images or --minutes.")
        return True
    shard = config.training.batch // world.size
    if compile == "graphs" and (config.training.microbatch or shard) < shard:
        # A graph writes its gradients over those of the microbatch before.
        raise ValueError(
            "--compile graphs takes each process's part of a batch at once: give --set "
            f"training.microbatch={shard}, or --compile on."
        )
    if compile in ("on", "graphs") or (compile == "auto" and world.device.type == "cuda"):
        compile_network(state.network, world.device, graphs=compile == "graphs")
    stop.saves_itself = True
    stream = _stream(store, config, state.images, world)
    steps = training_steps(state, config, stream, lambda: budget.progress, world)
    watchers = _watchers(store, options, observers, already) if world.is_main else []
    try:
        with _alone_in(run) if world.is_main else nullcontext(), watching(watchers, run, state, checkpoint, world):
            return _train_watched(steps, state, budget, watchers, world, stop)
    except (NonFiniteError, OSError, torch.OutOfMemoryError) as error:
        reason = _reason(config, error)
        raise WorkFailed(_failure(run, state, reason) if world.is_main else reason) from error
    except RuntimeError as error:
        if other := world.failure_of_another(error):
            raise PeerFailed(f"{_failure(run, state, str(other))} The same command resumes.") from error
        raise


class _Budget:
    """How much of the budget is spent, the same for all processes."""

    def __init__(self, config: TrainingConfig, state: TrainingState, world: World):
        self.config, self.state, self.world = config, state, world
        self.started = time.monotonic() - state.seconds
        self.progress = self._spent(state.seconds)
        """The fraction that is spent: from 0 to 1 and beyond."""

    def update(self, stop_requested: bool) -> bool:
        """Reads the clock after a step; returns whether any of the processes was requested to stop.

        A collective, the only one of a step besides those of the gradients and the loss: a budget in minutes goes by
        rank 0's clock.
        """
        self.state.seconds = time.monotonic() - self.started
        seconds, stops = self.world.sum(self.state.seconds if self.world.is_main else 0.0, stop_requested)
        self.progress = self._spent(seconds)
        return stops > 0

    def _spent(self, seconds: float) -> float:
        if self.config.total_images is not None:
            return self.state.images / self.config.total_images
        assert self.config.total_minutes is not None
        return seconds / (60 * self.config.total_minutes)


def _train_watched(
    steps: Iterator[StepReport],
    state: TrainingState,
    budget: _Budget,
    observers: Sequence[Observer],
    world: World,
    stop: StopRequest,
) -> bool:
    """Runs in every process, with the same collectives in the same order; returns whether the budget is spent."""
    for report in steps:
        stopped = budget.update(stop.requested)  # A signal may reach any of the processes.
        ends = budget.progress >= 1 or stopped
        if ends or state.skipped_in_a_row == MOST_SKIPPED_IN_A_ROW - 1:  # Otherwise the last step is not waited for.
            state.settle()
        fails = state.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW
        event = Event(
            images=state.images,
            report=report,
            progress=budget.progress,
            seconds=state.seconds,
            ends=ends,
            fails=fails,
            state=state,
        )
        with rank_0_may_look(state, world):
            for observer in observers:
                observer.step(event)
        if fails:  # In all processes or in none: the loss is the mean over all of them.
            raise NonFiniteError(NOT_FINITE)
        if ends:
            world.barrier()  # No process leaves before rank 0 has saved.
            return budget.progress >= 1
    raise AssertionError("training steps never run out")


def _watchers(
    store: Store,
    options: CheckpointOptions,
    observers: Sequence[Observer | Callable[[Event], object]],
    already: float,
) -> list[Observer]:
    """All observers in order: checkpoints come after the observers whose state they keep."""
    held_out = HeldOut(store, already)
    kept = [held_out, Log(held_out), *map(as_observer, observers)]
    return [ProgressBar(), *kept, Checkpoints(options, kept), Previews(already, store)]


@contextmanager
def _alone_in(run: Run) -> Generator[None, None, None]:
    """Keeps other commands from training in the run folder, and removes what a killed one left half-written."""
    try:
        with FileLock(run.folder / ".training.lock", timeout=0):
            for folder in (run.folder, run.folder / "checkpoints", run.folder / "previews"):
                remove_unfinished(folder)
            yield
    except Timeout as error:
        raise ValueError(f"{run.folder.absolute()} is being trained by another process: wait, or stop it.") from error


def _stream(store: Store, config: Config, first_image: int, world: World) -> Iterator[Batch]:
    training = config.training
    held_out, batch = training.held_out_images, training.batch
    images = ImageStream(store, config.augmentation, training.label_dropout, config.seed, held_out, batch)
    on_gpu = world.device.type == "cuda"
    batch_bytes = training.batch // world.size * 2 * 4 * math.prod(store.shape)  # Images and noise, in float32.
    workers = loader_workers(world.device, batch_bytes)
    return batches(images, first_image, config.training.batch, world.rank, world.size, workers, on_gpu)


def _started_from(config: Config) -> str:
    origin = config.origin
    return f"Starting with the weights of {origin.run} ({origin.images:,} images)." if origin else "Starting."


def _reason(config: Config, error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        half = max(1, (config.training.microbatch or 2) // 2)
        return f"out of memory; --set training.microbatch={half} needs less and trains the same"
    return sentence(error)


def _failure(run: Run, state: TrainingState, reason: str) -> str:
    good = run.last_good()
    kept = f"the last good checkpoint is {good.folder.absolute()}" if good else "there is no checkpoint yet"
    return f"Training stopped after {state.images:,} images: {reason}; {kept}."
