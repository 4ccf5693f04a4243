"""undiffuse quickstart"""

from typing import Annotated

from undiffuse.commands.options import unless_given
from undiffuse.utils.terminal import console, loading
from undiffuse.utils.text import duration


def quickstart(
    images: Annotated[str | None, unless_given("32k")] = None, seed: int = 0, out: str = "runs/quickstart"
) -> None:
    """Train on handwritten digits by class, sample, and write report.html: a tour of undiffuse in five minutes.

    Args:
        images: Training budget in images seen.
        seed: Seed of the training run.
        out: Run folder.
    """
    with loading():
        from undiffuse import api

    done = api.quickstart(images, seed, out)
    reading = done.reading
    console.print(f"{reading.correct:.1%} of {reading.samples} samples are read as the digit that was asked for")
    console.print(f"by a classifier that reads {reading.held_out_accuracy:.1%} of held-out real digits correctly.")
    console.print(f"Done in {duration(done.seconds)}. Open {done.report.absolute()}")
