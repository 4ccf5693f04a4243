"""undiffuse quickstart"""

import time
from pathlib import Path
from typing import Annotated

from undiffuse.commands.options import unless_given
from undiffuse.commands.train import train
from undiffuse.utils.terminal import Meter, console
from undiffuse.utils.text import duration

READ = 500


def quickstart(
    images: Annotated[str | None, unless_given("32k")] = None, seed: int = 0, out: str = "runs/quickstart"
) -> None:
    """Train on handwritten digits by class, sample, and write report.html: the whole of undiffuse in five minutes.

    Args:
        images: Training budget in images seen.
        seed: Of the model.
        out: Run folder.
    """
    began, anew = time.monotonic(), not Path(out).exists()
    train(data="digits", preset="digits", images=images, seed=seed, out=out)

    from undiffuse.data.store import open_store
    from undiffuse.evaluation.quickstart import ROWS, write_report
    from undiffuse.runs import gallery as galleries
    from undiffuse.runs.run import open_run
    from undiffuse.sampling.model import load_model
    from undiffuse.utils.device import choose_device

    run = open_run(Path(out))
    model, checkpoint = load_model(run, choose_device(), "average")
    folder = run.folder / "samples" / f"quickstart-{checkpoint.images}"
    made_by = galleries.maker(run, checkpoint, "average")
    gallery = galleries.open_gallery(folder, model, run.config.sampling, label=None, made_by=made_by)
    galleries.fill(gallery, range(READ), batch=100)
    shown = range(ROWS * len(model.class_names))
    grid = galleries.save_grid(gallery, shown)
    with Meter("film", gallery.how.steps) as meter:
        strip, _ = galleries.save_film(gallery, shown, lambda i: meter.reach(i, f"step {i}"))
    store = open_store(run.config.data)
    report = run.folder / "report.html"
    seconds = time.monotonic() - began if anew else None  # Of a part of it only, the time would mislead.
    reading = write_report(report, run, store, gallery, range(READ), grid, strip, seconds)
    console.print(f"{reading.read_as_asked:.1%} of {reading.samples} samples are read as the digit asked for")
    console.print(f"by a classifier that reads {reading.held_out_accuracy:.1%} of held-out real digits right.")
    console.print(f"Done in {duration(time.monotonic() - began)}. Open {report.absolute()}")
