"""Tuning a sampler: the noise levels that make the most of few steps."""

from dataclasses import dataclass
from pathlib import Path

from undiffuse.api.runs import RunLike, as_run
from undiffuse.data.store import Store, open_store
from undiffuse.runs.run import Run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import sampling_config
from undiffuse.sampling.tuned import NAME, TunedSchedule, save_tuned
from undiffuse.tuning.bound import tune_stride
from undiffuse.tuning.tune import tune
from undiffuse.utils.files import check_writable
from undiffuse.utils.names import TUNABLE
from undiffuse.utils.parsing import at_least
from undiffuse.utils.terminal import log, speaking


@dataclass(frozen=True)
class Tuned:
    """The noise levels that were found, and whether they are better.

    Example:
        tuned = undiffuse.tune_sampler("digits", steps=6)
        tuned.sigmas, tuned.error, tuned.default_error, tuned.is_better
    """

    schedule: TunedSchedule
    file: Path
    """Where it is kept, if it is better."""

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The falling noise levels of the steps, without the 0 at the end."""
        return tuple(self.schedule.sampling.sigmas)

    @property
    def error(self) -> float:
        """On images that they were not searched with: see `measure` of the schedule."""
        return self.schedule.error

    @property
    def default_error(self) -> float:
        """The same of the noise levels that are used without tuning."""
        return self.schedule.default_error

    @property
    def is_better(self) -> bool:
        """Whether the error is smaller than without tuning; only then are they kept and used."""
        return self.schedule.is_better


def tune_sampler(
    run: RunLike = None,
    *,
    steps: int = 6,
    sampler: str = "ipndm",
    guidance: float | None = None,
    guidance_interval: str | tuple[float, float] | None = None,
    minutes: float = 8,
    progress: bool = False,
) -> Tuned:
    """Finds the noise levels that make the most of few steps, and keeps them in the run.

    ipndm, dpmpp_2m and heun are tuned to end where the run's own sampling in 60 steps does: first by GITS' dynamic
    program over its trajectories (Chen et al. 2024), then by a search with the sampler itself, which is checked on
    other seeds. ancestral is tuned to the smallest bound on the bits/dim of the run's images (Watson et al. 2021).
    From then on sampling uses them, unless `set={"sigmas": "karras"}` or the like says otherwise. Called again it goes
    on where it was interrupted.

    Args:
        run: A run, its folder, its name under runs/, or a Model; None takes the newest run.
        steps: Of the sampler; at least 2.
        sampler: ipndm, dpmpp_2m, heun, or ancestral for a run with a discrete schedule.
        guidance: The levels are for this guidance; None: the run's.
        guidance_interval: And for this interval, as in `Model.sample`.
        minutes: About how long it may take: more of them look at more images.
        progress: Shows notices and a progress bar.

    Raises:
        FileNotFoundError: there is no such run, or for ancestral no images to measure the bound with.
        ValueError: an option is out of range, the run cannot be written to, or a file of its tuning is damaged.

    Example:
        undiffuse.tune_sampler("runs/flowers", steps=6).is_better
        undiffuse.load("runs/flowers").sample(8, steps=6)
    """
    at_least(2, steps=steps)
    if not minutes > 0:
        raise ValueError(f"minutes {minutes:g} leave no time: give more than 0.")
    if sampler not in TUNABLE:
        raise ValueError(f"--sampler {sampler} cannot be tuned: choose {', '.join(TUNABLE)}.")
    with speaking(progress):
        opened = as_run(run)
        settings = ["sigmas=auto"]
        sampling = sampling_config(opened.config, sampler, steps, guidance, None, settings, guidance_interval)
        folder = opened.output_folder / "tuning"
        check_writable(folder)
        model = run if isinstance(run, Model) else load_model(opened)
        if sampler == "ancestral":
            outcome = tune_stride(model, sampling, _images(opened), folder, minutes)
        else:
            outcome = tune(model, sampling, folder, minutes)
        file = opened.output_folder / NAME
        if outcome.again:
            log.info(f"The search was finished before: {folder.absolute()}")
        if outcome.schedule.is_better:
            file = save_tuned(opened, outcome.schedule)
            log.info(f"Tuned {outcome.schedule}, on {outcome.schedule.images_measured:,} other images.")
            log.info(f"Kept in {file.absolute()}: sampling uses it.")
        else:
            log.info(f"No better levels were found for {outcome.schedule}: nothing is kept.")
    return Tuned(outcome.schedule, file)


def _images(run: Run) -> Store:
    """The images that the run was trained on."""
    if not run.config.data_content:
        raise ValueError(f"{run.folder.absolute()} holds an imported model without images: ancestral cannot be tuned.")
    return open_store(run.config.data)
