"""The whole of undiffuse in five minutes: train on digits, sample, and write a page about it."""

import time
from dataclasses import dataclass
from pathlib import Path

from undiffuse.api.sample import load
from undiffuse.api.train import train
from undiffuse.data.store import open_store
from undiffuse.evaluation.quickstart import ROWS, write_report
from undiffuse.evaluation.reader import Reading
from undiffuse.runs.run import Run
from undiffuse.sampling.generate import fill, gallery_in, save_film, save_grid
from undiffuse.utils.terminal import Meter, speaking

SAMPLES = 500


@dataclass(frozen=True)
class Quickstart:
    """What came out."""

    run: Run
    report: Path
    """The page."""
    reading: Reading
    """How many of the samples a classifier reads as the digit that was asked for."""
    seconds: float


def quickstart(
    images: int | str | None = None,
    seed: int = 0,
    out: str | Path = "runs/quickstart",
    samples: int = SAMPLES,
    progress: bool = False,
) -> Quickstart:
    """Trains on handwritten digits by class, samples, and writes report.html into the run folder `out`.

    Args:
        images: Training budget in images seen, such as "32k", the default of the preset.
        seed: The same seed gives the same model.
        out: Run folder; called again it resumes.
        samples: How many a classifier reads, at least 100.
        progress: Shows notices and progress bars.

    Example:
        print(undiffuse.quickstart(progress=True).report)
    """
    began, is_new = time.monotonic(), not Path(out).exists()
    with speaking(progress):
        run = train("digits", preset="digits", images=images, seed=seed, out=out)
        model = load(run)
        folder = run.folder / "samples" / f"quickstart-{model.origin[1].images}"
        gallery = gallery_in(folder, model, run.config.sampling)
        fill(gallery, model, range(samples), batch=100)
        shown = range(ROWS * len(model.class_names))
        save_grid(gallery, shown)
        with Meter("film", gallery.sampling.steps) as meter:
            film, _ = save_film(gallery, model, shown, lambda step: meter.reach(step, f"step {step}"))
        seconds = time.monotonic() - began
        report = run.folder / "report.html"
        store = open_store(run.config.data)
        # Of a run that was resumed the time would mislead.
        reading = write_report(report, model, store, gallery, range(samples), film, seconds if is_new else None)
    return Quickstart(run, report, reading, time.monotonic() - began)
