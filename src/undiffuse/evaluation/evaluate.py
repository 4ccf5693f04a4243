"""A whole evaluation: samples against sets of real images, and the page about it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from undiffuse.evaluation.bits_per_dim import bits_per_dim
from undiffuse.evaluation.colors import color
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.memorization import find_memorization
from undiffuse.evaluation.references import References
from undiffuse.evaluation.result import Evaluation
from undiffuse.features.image_sets import ImageSet
from undiffuse.sampling.model import Model
from undiffuse.utils.errors import Skipped
from undiffuse.utils.terminal import log

NO_MODEL = Skipped("Not computed: that takes a model.")

Bits = Callable[[], dict[str, Any]]
"""Computes bits/dim, which may take hours."""


def evaluate_images(
    title: str,
    fake: ImageSet,
    references: References,
    context: EvaluationContext,
    made_by: dict[str, Any] | None = None,
    bits: Bits | Skipped = NO_MODEL,
    folder: Path | None = None,
    training: Sequence[dict[str, Any]] = (),
) -> Evaluation:
    """Measures generated images, and writes report.html and metrics.json into `folder`, if there is one.

    Computing bits/dim may take hours, so the report is written before and again after it. Processes share features and
    bits/dim; in all but the main one the result is empty.

    Args:
        made_by: How the images were made, as JSON has it.
        training: The lines of the run's log.

    Raises:
        ValueError: there are too few images to measure anything.
    """
    measurements = context.measure(fake, references.sets)
    if not measurements:  # Another process than the main one.
        if not isinstance(bits, Skipped):
            bits()
        return Evaluation(title, ())
    evaluation = Evaluation(
        title=title,
        measurements=tuple(measurements),
        made_by=made_by or {},
        colors={"samples": color(fake)} | {f"real, {real.name} {real.split}": color(real) for real in references.sets},
        memorization=references.memorization or find_memorization(measurements, context),
        training=tuple(training),
        bits_per_dim=bits if isinstance(bits, Skipped) else Skipped("Not computed yet when this was written."),
    )
    if folder is not None:
        evaluation.write(folder)
    if isinstance(bits, Skipped):
        return evaluation
    evaluation = replace(evaluation, bits_per_dim=bits())
    if folder is not None:
        evaluation.write(folder)
    return evaluation


def bits_of(model: Model, references: References, count: int, context: EvaluationContext) -> Bits | Skipped:
    """Computes bits/dim of `count` held-out images, or says why it cannot."""
    store = references.held_out
    if count == 0:
        return Skipped("Not computed: --likelihood 100 computes it for 100 held-out images, which takes long.")
    if model.diffusion.jumps:
        return Skipped("Not computed: a distilled model makes samples, and gives no probability to an image.")
    if model.config.image_condition is not None:
        return Skipped(
            "Not computed: this model makes images from others, and was never trained to tell how likely an image is "
            "with its class but without the other image."
        )
    if store is None:
        return Skipped(
            "Not computed: no images are known to be held out from training, and the model's bits/dim on its training "
            "images say nothing about others."
        )
    if count > len(store):
        log.warning(f"--likelihood {count:,}: only {len(store):,} images are held out, and all are used.")
    return lambda: bits_per_dim(model, store, count, 0, context.batch, context.world)
