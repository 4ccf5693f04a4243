"""Tuning the EMA: its length, chosen after the training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from undiffuse.api.compare import compare
from undiffuse.api.data import make_output
from undiffuse.api.evaluate import FeaturesLike
from undiffuse.api.runs import RunLike, as_run
from undiffuse.evaluation.comparison import Comparison
from undiffuse.runs.find import RUNS
from undiffuse.runs.run import Run
from undiffuse.tuning.ema import MOST_ERROR, as_trained, combination, run_of_length, whole_checkpoints
from undiffuse.utils.names import EMA_LENGTHS, SamplingPrecision, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_ema_lengths
from undiffuse.utils.terminal import Meter, log, speaking
from undiffuse.utils.text import plural
from undiffuse.utils.world import init_distributed


@dataclass(frozen=True)
class TunedEMA:
    """EMAs of several lengths, and the distance of the samples of each to the real images.

    Example:
        tuned = undiffuse.tune_ema("runs/flowers", lengths=[0.05, 0.1])
        tuned.best.folder, tuned.comparison.rows
    """

    runs: tuple[Run, ...]
    """A run for each length, from the shortest."""
    comparison: Comparison
    """Of these runs; under torchrun only the main process has rows."""

    @property
    def best(self) -> Run:
        """The run with the smallest distance.

        Raises:
            ValueError: this is not the main process.
        """
        return self.comparison.best.candidate.model.origin[0]


def tune_ema(
    run: RunLike = None,
    *,
    lengths: Sequence[float] = EMA_LENGTHS,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    repeats: int = 1,
    count: int | str = 1000,
    real_count: int | str | None = None,
    features: FeaturesLike = "inception",
    weights: str | Path | None = None,
    split: Split = "auto",
    precision: SamplingPrecision | None = None,
    seed: int = 0,
    batch: int = 64,
    out: str | Path | None = None,
    progress: bool = False,
) -> TunedEMA:
    """Makes EMAs of other lengths from the checkpoints that a run has kept, and compares them.

    How long the EMA should be is known only after training (Karras et al. 2024, EDM2, arXiv 2312.02696, section 3).
    Sums of the EMAs of several checkpoints come close to EMAs of other lengths, if the checkpoints are spread over the
    training and not much further apart than each of them averages over: train with keep=20 or more, with
    checkpoint_images, and for many images with training.ema_halflife_images of at least a twentieth of them.

    Each length becomes a run of its own, which is sampled and evaluated like any other, and the length as trained does
    too. Called again it goes on where it was interrupted.

    Args:
        run: A run, its folder or its name under runs/; None takes the newest run.
        lengths: Each the standard deviation of what the EMA averages over, as a fraction of the training: EDM2's
            sigma_rel. As trained it is 0.063 for the first 20 half-lives of images (2 million with the preset small),
            and shorter from then on.
        sampler: As in `compare`, and so are steps, guidance, repeats, count, real_count, features, weights, split,
            precision, seed and batch. None: the run's.
        out: Folder for the runs and comparison.html; None: runs/NAME-ema.
        progress: Shows notices and progress bars.

    Raises:
        FileNotFoundError: there is no such run, data or file of weights.
        ValueError: an option is out of range, or the run has kept too few checkpoints for any of the lengths.
        WorkFailed: out of memory, or weights cannot be downloaded.

    Example:
        undiffuse.train("photos/", out="runs/photos", keep=24, checkpoint_images="20k")
        undiffuse.tune_ema("runs/photos", lengths=[0.03, 0.1]).best
    """
    chosen = parse_ema_lengths(lengths)
    parse_count(count, "--count")
    at_least(1, batch=batch, repeats=repeats, steps=1 if steps is None else steps)
    at_least(0, seed=seed)
    with init_distributed() as world, speaking(progress and world.is_main):
        opened = world.on_main(lambda: as_run(run))
        folder = RUNS / f"{opened.name}-ema" if out is None else Path(out).expanduser()
        made = world.on_main(lambda: _runs(opened, chosen, make_output(folder, opened.config.data.data)))
    comparison = compare(
        made,
        samplers=() if sampler is None else (sampler,),
        steps=() if steps is None else (steps,),
        guidance=guidance,
        repeats=repeats,
        count=count,
        real_count=real_count,
        features=features,
        weights=weights,
        split=split,
        precision=precision,
        seed=seed,
        batch=batch,
        out=folder,
        progress=progress,
    )
    return TunedEMA(tuple(made), comparison)


def _runs(run: Run, lengths: Sequence[float], folder: Path) -> list[Run]:
    """A run for each length that the checkpoints can be combined to, and for the length as trained.

    Raises:
        ValueError: others were asked for, but none can be made.
    """
    checkpoints = whole_checkpoints(run)
    if not checkpoints or not run.config.data_content:
        raise ValueError(f"{run.folder.absolute()} has no checkpoint of a training: train a run with --keep 20 first.")
    snapshots = [checkpoint.images for checkpoint in checkpoints]
    halflife = run.config.training.ema_halflife_images
    own, alone = as_trained(snapshots, halflife)
    own = float(f"{own:.3g}")
    others = [length for length in lengths if not math.isclose(length, own, rel_tol=0.01)]
    fits = {length: combination(snapshots, halflife, length) for length in others}
    for length, fit in fits.items():
        if fit.error > MOST_ERROR:
            log.warning(
                f"An EMA of length {length:g} is left out: the nearest sum of checkpoints is {fit.error:.0%} off."
            )
    fits = {length: fit for length, fit in fits.items() if fit.error <= MOST_ERROR}
    if others and not fits:
        raise ValueError(
            f"The {plural(len(checkpoints), 'checkpoint')} that {run.folder.absolute()} has kept cannot be combined to "
            f"EMAs of these lengths: choose --lengths nearer to {own:g}, or train with --keep 20 and with "
            "--checkpoint-images so that they are spread over the training."
        )
    fits[own] = alone
    made = []
    with Meter("combining checkpoints", len(fits)) as meter:
        for i, (length, fit) in enumerate(sorted(fits.items())):
            meter.reach(i, f"EMA length {length:g}")
            name = f"{run.name}-ema-{length:g}"
            made.append(run_of_length(run, checkpoints, length, fit, folder / name))
            how = (
                "as trained"
                if length == own
                else f"{len(checkpoints)} checkpoints combined, profile {fit.error:.0%} off"
            )
            log.info(f"EMA length {length:g}: {how}: {folder / name}")
    return made
