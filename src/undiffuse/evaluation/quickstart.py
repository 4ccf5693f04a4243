"""The quickstart's report: what was trained, what came out, and how much of it a classifier can read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from undiffuse.data.pixels import to_nchw, to_nhwc
from undiffuse.data.store import Store
from undiffuse.evaluation import protocol
from undiffuse.evaluation.colors import color
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.memorization import find_memorization
from undiffuse.evaluation.numbers import with_spread
from undiffuse.evaluation.pages.sections import color_section, memorization_sections
from undiffuse.evaluation.reader import Reading, read_samples
from undiffuse.features.image_sets import of_gallery, of_store
from undiffuse.features.networks import pixels_network
from undiffuse.report import grids, page
from undiffuse.report.curves import training_curves
from undiffuse.runs.gallery import Gallery
from undiffuse.runs.run import Run
from undiffuse.sampling.labels import labels_for
from undiffuse.sampling.model import Model
from undiffuse.sampling.nfe import nfe
from undiffuse.utils.text import duration, size_text
from undiffuse.utils.world import World

ROWS = 10
"""Images of each class that the page shows."""


def write_report(
    path: Path, model: Model, store: Store, gallery: Gallery, seeds: Sequence[int], film: Path, seconds: float | None
) -> Reading:
    """Reads the samples of `seeds` and writes the page.

    Args:
        film: An image that shows the sampling of a few digits, step by step.
        seconds: How long everything took, if that is known.
    """
    run, _ = model.origin
    labels = labels_for(gallery.class_names, seeds, gallery.labels)
    assert labels is not None, "the quickstart's model has classes"
    real = store.read(range(len(store)))
    reading = read_samples(real, store.labels, to_nhwc(gallery.pixels(seeds)), np.array(labels))
    lines = run.log_lines()
    page.write_page(
        path,
        title="Handwritten digits, made from noise",
        lead=f"A diffusion model trained from scratch on {len(store):,} scanned digits, on this machine, just now.",
        headline=[
            ("samples read as the digit they should be", f"{reading.correct:.1%}"),
            ("held-out real digits read correctly", f"{reading.held_out_accuracy:.1%}"),
            ("images seen in training", f"{lines[-1]['images']:,}"),
            ("training", duration(lines[-1]["seconds"])),
            *([("with sampling and this page", duration(seconds))] if seconds is not None else []),
        ],
        sections=[
            *_image_sections(store, gallery, seeds, film),
            _training_section(lines),
            _reading_section(reading, gallery),
            *_measured_sections(run, store, gallery, seeds),
            _recipe_section(model, store, gallery),
        ],
    )
    return reading


def _image_sections(store: Store, gallery: Gallery, seeds: Sequence[int], film: Path) -> list[page.Section]:
    classes = len(gallery.class_names)
    shown = seeds[: ROWS * classes]
    samples = grids.grid_for_page(gallery.pixels(shown), columns=classes)
    return [
        page.Section(
            "Samples",
            "One column a digit. These are the first seeds, in order, not selected.",
            [page.from_image(samples, f"Seeds {shown[0]} to {shown[-1]}.")],
        ),
        page.Section(
            "Real digits, to compare",
            "The first ones of each class, as training saw them.",
            [page.from_image(_real_grid(store), "Ten real digits of each class.")],
        ),
        page.Section(
            "From noise to digit",
            "Sampling starts with pure noise and removes it step by step.",
            [
                page.from_file(
                    film,
                    "Four digits, from left to right. Above: the noisy image. Below: the clean image that the network "
                    "predicts from it at that moment.",
                )
            ],
        ),
    ]


def _real_grid(store: Store) -> Image.Image:
    classes = len(store.class_names)
    by_class = [np.flatnonzero(store.labels == label)[:ROWS] for label in range(classes)]
    indices = np.stack(by_class, axis=1).reshape(-1)
    return grids.grid_for_page(to_nchw(store.read(indices)), columns=classes)


def _training_section(lines: Sequence[dict[str, Any]]) -> page.Section:
    return page.Section(
        "Training",
        "The loss is the squared error of the network's output, averaged over all noise levels. It soon flattens, but "
        "the images keep improving.",
        [page.from_plot(lambda: training_curves(lines), "Loss and learning rate over the images seen.")],
    )


def _reading_section(reading: Reading, gallery: Gallery) -> page.Section:
    return page.Section(
        "Can they be read?",
        "A support vector machine trained on three quarters of the real digits reads "
        f"{reading.held_out_accuracy:.1%} of the other {reading.held_out} correctly. Of {reading.samples} samples made "
        f"with guidance {gallery.sampling.guidance:g} it reads {reading.correct:.1%} as the digit they should be. "
        "Guidance above 1 makes digits clearer and less varied, so this shows that they are legible, not that they are "
        "as varied as real ones.",
        head=["should be", *(f"read as {name}" for name in gallery.class_names)],
        rows=[
            [name, *(count or "" for count in row)]
            for name, row in zip(gallery.class_names, reading.confusion.tolist(), strict=True)
        ],
    )


def _measured_sections(run: Run, store: Store, gallery: Gallery, seeds: Sequence[int]) -> list[page.Section]:
    """What an evaluation finds that needs no network: neighbors, memorization and colors."""
    labels = labels_for(gallery.class_names, seeds, gallery.labels)
    fake, real = of_gallery(gallery, seeds, "samples", labels), of_store(store, run.config.data)
    context = EvaluationContext(pixels_network(), World.alone(), batch=500)
    measurements = context.measure(fake, [real])
    distance, kernel = context.network.distance, context.network.kernel
    return [
        page.Section(
            "As varied as real ones?",
            "Precision is the fraction of the samples that lie among the real digits; recall and coverage are the "
            f"fraction of the real digits that lie among the samples. {distance} and {kernel} are FID and KID computed "
            "on pixels instead of Inception's features, so that this page needs no download; undiffuse evaluate uses "
            "Inception. " + " ".join(protocol.warnings(measurements)),
            head=["metric", "value", "details"],
            rows=[[v.metric, with_spread(v.value, v.spread), v.note] for v in measurements[0].values],
        ),
        *memorization_sections(fake, real, find_memorization(measurements, context)),
        color_section({"samples": color(fake), "real": color(real)}),
    ]


def _recipe_section(model: Model, store: Store, gallery: Gallery) -> page.Section:
    config, sampling = model.config, gallery.sampling
    return page.Section(
        "How it was made",
        rows=[
            ["preset", f"{config.preset}, seed {config.seed}"],
            ["images", f"{len(store):,}, {size_text(store.size)} pixels, enlarged from 8x8"],
            ["sampler", f"{sampling.sampler}, {sampling.steps} steps, NFE {nfe(model, sampling, [0])}"],
            ["sample again with", f"undiffuse sample {model.origin[0].folder}"],
        ],
    )
