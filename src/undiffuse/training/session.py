"""A training run in its folder: begun or resumed, watched, saved, and stopped without loss."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from undiffuse.config import Config, SamplingConfig, TrainingConfig, differences, to_json
from undiffuse.data.batches import Batch, ImageStream, batches
from undiffuse.data.store import Store
from undiffuse.runs.find import is_run
from undiffuse.runs.run import Checkpoint, NonFiniteError, Run, create_run, open_run
from undiffuse.training.ema import ema_copy
from undiffuse.training.log import TrainingLog
from undiffuse.training.loop import StepReport, TrainingState, train
from undiffuse.training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors
from undiffuse.training.previews import save_previews
from undiffuse.training.signals import StopRequest
from undiffuse.utils.device import compute_dtype, loader_workers
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.files import remove_unfinished, write_atomically
from undiffuse.utils.randomness import derived_seed
from undiffuse.utils.terminal import Meter, log
from undiffuse.utils.world import World

MOST_SKIPPED_IN_A_ROW = 10
NOT_FINITE = (
    f"the loss or its gradient was not finite {MOST_SKIPPED_IN_A_ROW} batches in a row; start again with a lower "
    "--set optimizer.learning_rate, or --precision fp32"
)
CHECKPOINT_SECONDS = 300
PREVIEWS = 5
"""Previews over the whole budget, evenly spread."""

MAY_CHANGE = {
    "data.data",
    "data.data_root",
    "training.total_images",
    "training.total_minutes",
    "training.microbatch",
    *(f"sampling.{field.name}" for field in fields(SamplingConfig)),
}
"""Settings that may differ when a run is resumed: the budget may grow, and the same images may have moved."""


@dataclass(frozen=True)
class CheckpointOptions:
    """What does not make a run another run."""

    keep: int = 3
    """Checkpoints that are kept."""
    checkpoint_images: int | None = None
    """Images from one checkpoint to the next; unless given, every five minutes."""
    compile: bool = False
    """torch.compile the network for training."""


def begin_or_resume(folder: Path, config: Config) -> Run:
    """The run in `folder`, made if there is none, or none that has come to a checkpoint.

    Raises:
        ValueError: the run there has other settings, or something else is there.
    """
    if not is_run(folder):
        return create_run(folder, config)
    run = open_run(folder)
    if not run.config.data_content:
        raise ValueError(
            f"{folder.absolute()} holds an imported model, without the images and the optimizer that it would train "
            "on with: give another --out to start from scratch."
        )
    changed = {name: values for name, values in differences(run.config, config).items() if name not in MAY_CHANGE}
    if run.checkpoints() and "data_content" in changed:
        raise ValueError(
            f"The images at {config.data.data} are no longer those that {folder.absolute()} was trained on: bring "
            "them back to resume it, or give another --out to start from scratch."
        )
    if run.checkpoints() and changed:
        name, (before, after) = next(iter(changed.items()))
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(
            f"{folder.absolute()} holds a run with other settings ({name} {before} -> {after}{more}): give the same to "
            "resume it, or another --out to start from scratch."
        )
    if config != run.config:
        write_atomically(folder / "config.json", to_json(config))
    return Run(folder, config)


def train_run(run: Run, store: Store, habits: CheckpointOptions, world: World, stop: StopRequest) -> bool:
    """Trains until the budget is spent (then returns True) or a stop was asked for; either way all is saved.

    Raises:
        WorkFailed: loss or weights are no longer finite, or the disk is full; the last good checkpoint is named.
    """
    config = run.config
    state = new_state(config, world.device)
    checkpoint = run.last_good()
    if checkpoint is not None:
        restore(state, checkpoint)
        log.info(f"Resuming at {state.images:,} images.")
    budget = _Budget(config.training, state, world)
    already = budget.spent()
    if already >= 1:
        log.info("The budget of this run is spent. To train it further, give more --images or --minutes.")
        return True
    if habits.compile:
        state.network.compile()
    stop.saves_itself = True
    pending = checkpoint.state["pending"] if checkpoint is not None else None
    steps = train(
        state,
        config,
        _stream(store, config, state.images, world),
        budget.spent,
        world,
        compute_dtype(world.device, config.training.precision),
    )
    if not world.is_main:
        return _follow(steps, budget, world, stop, state)
    try:
        with _alone_in(run), closing(TrainingLog(run, state.images, pending)) as training_log:
            return _lead(steps, run, state, training_log, budget, already, habits, world, stop)
    except (NonFiniteError, OSError) as error:
        raise _failure(run, state, str(error)) from error
    except torch.OutOfMemoryError as error:
        half = max(1, config.training.microbatch // 2)
        reason = f"out of memory; --set training.microbatch={half} needs less and trains the same"
        raise _failure(run, state, reason) from error


@contextmanager
def _alone_in(run: Run) -> Generator[None, None, None]:
    """Keeps a second command out of the run folder, and clears up what a killed one left half-written."""
    try:
        with FileLock(run.folder / ".training.lock", timeout=0):
            for folder in (run.folder, run.folder / "checkpoints", run.folder / "previews"):
                remove_unfinished(folder)
            yield
    except Timeout as error:
        raise ValueError(f"{run.folder.absolute()} is being trained by another process: wait, or stop it.") from error


def new_state(config: Config, device: torch.device) -> TrainingState:
    """The state before the first step: the same for the same seed, wherever it is made."""
    torch.manual_seed(derived_seed("weights", config.seed))
    network = config.build_network().to(device).to(memory_format=torch.channels_last)
    muon_dtype = compute_dtype(device, config.training.precision)
    optimizers = build_optimizers(network, config.optimizer, muon_dtype)
    return TrainingState(network, ema_copy(network), optimizers, config.diffusion.draws())


def restore(state: TrainingState, checkpoint: Checkpoint) -> None:
    """Puts the state back to where the checkpoint was taken, to the last bit."""
    state.network.load_state_dict(checkpoint.tensors("network"))
    state.average.load_state_dict(checkpoint.tensors("average"))
    load_optimizer_tensors(state.optimizers, checkpoint.tensors("optimizer"))
    if state.draws.tensors():
        state.draws.load(checkpoint.tensors("draws"))
    state.images = checkpoint.images
    for name in ("seconds", "skipped", "skipped_in_a_row"):
        setattr(state, name, checkpoint.state[name])


class _Budget:
    """How much of the budget is spent, the same for all world."""

    def __init__(self, config: TrainingConfig, state: TrainingState, world: World):
        self.config, self.state, self.world = config, state, world
        self.started = time.monotonic() - state.seconds

    def spent(self) -> float:
        """From 0 to 1 and beyond."""
        self.state.seconds = time.monotonic() - self.started
        if self.config.total_images is not None:
            return self.state.images / self.config.total_images
        assert self.config.total_minutes is not None
        return self.world.broadcast(self.state.seconds) / (60 * self.config.total_minutes)


def _stream(store: Store, config: Config, first_image: int, world: World) -> Iterator[Batch]:
    images = ImageStream(store, config.augmentation, config.training.label_dropout, config.seed)
    on_gpu = world.device.type == "cuda"
    workers = loader_workers(world.device)
    return batches(images, first_image, config.training.batch, world.rank, world.size, workers, on_gpu)


def _follow(
    steps: Iterator[StepReport], budget: _Budget, world: World, stop: StopRequest, state: TrainingState
) -> bool:
    """What the world beside the main one do: the same steps, and the same agreements in the same order."""
    for _ in steps:
        if state.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise SystemExit(1)  # The main process says why.
        spent, asked = budget.spent() >= 1, world.sum(stop.requested)[0] > 0
        if spent or asked:
            world.barrier()
            return spent
    raise AssertionError("the steps have no end of their own")


def _lead(
    steps: Iterator[StepReport],
    run: Run,
    state: TrainingState,
    training_log: TrainingLog,
    budget: _Budget,
    already: float,
    habits: CheckpointOptions,
    world: World,
    stop: StopRequest,
) -> bool:
    began_images, began = state.images, time.monotonic()
    saved_images, saved_at = state.images, began
    previews = int(already * PREVIEWS)
    with Meter("training", 1.0) as meter:
        for report in steps:
            training_log.add(report, state)
            if state.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
                raise _failure(run, state, NOT_FINITE)
            progress, asked = budget.spent(), world.sum(stop.requested)[0] > 0
            now = time.monotonic()
            speed = (state.images - began_images) / (now - began)
            meter.reach(min(progress, 1.0), f"{state.images:,} images, {speed:,.0f}/s, loss {report.loss:.4f}")
            ends = progress >= 1 or asked
            due = (
                state.images // habits.checkpoint_images > saved_images // habits.checkpoint_images
                if habits.checkpoint_images
                else now - saved_at >= CHECKPOINT_SECONDS
            )
            if ends or due:
                _save(run, state, training_log, habits.keep)
                saved_images, saved_at = state.images, now
            if int(progress * PREVIEWS) > previews and not asked:
                previews = int(progress * PREVIEWS)
                save_previews(run, state, world)
            if ends:
                world.barrier()
                return progress >= 1
    raise AssertionError("the steps have no end of their own")


def _save(run: Run, state: TrainingState, training_log: TrainingLog, keep: int) -> None:
    training_log.sync()
    parts = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": optimizer_tensors(state.optimizers),
        "draws": state.draws.tensors(),
    }
    run.save(
        state.images,
        parts={name: tensors for name, tensors in parts.items() if tensors},
        state={
            "seconds": state.seconds,
            "skipped": state.skipped,
            "skipped_in_a_row": state.skipped_in_a_row,
            "pending": training_log.pending,
        },
        keep=keep,
    )


def _failure(run: Run, state: TrainingState, reason: str) -> WorkFailed:
    good = run.last_good()
    kept = f"the last good checkpoint is {good.folder.absolute()}" if good else "there is no checkpoint yet"
    return WorkFailed(f"Training stopped after {state.images:,} images: {reason}; {kept}.")
