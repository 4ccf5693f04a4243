"""The quickstart's report: what was trained, what came out, and how much of it a classifier can read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from undiffuse.data.store import Store
from undiffuse.evaluation import protocol
from undiffuse.evaluation.colors import color
from undiffuse.evaluation.curves import training_curves
from undiffuse.evaluation.evaluate import Work, find_memorization, measure
from undiffuse.evaluation.reader import Reading, read_samples
from undiffuse.evaluation.report import color_section, nearest_sections, with_spread
from undiffuse.features.cache import Share
from undiffuse.features.image_sets import of_gallery, of_store
from undiffuse.features.networks import pixels_net
from undiffuse.report import grids, page
from undiffuse.runs.gallery import Gallery
from undiffuse.runs.run import Run
from undiffuse.sampling.model import labels_for, nfe
from undiffuse.utils.device import choose_device
from undiffuse.utils.text import duration

ROWS = 10
"""Images a class that the page shows."""


def write_report(
    path: Path,
    run: Run,
    store: Store,
    gallery: Gallery,
    seeds: Sequence[int],
    grid: Path,
    strip: Path,
    seconds: float | None,
) -> Reading:
    """Reads the samples of `seeds` and writes the page; `seconds` is how long everything took, if it is known."""
    asked = labels_for(gallery.model, seeds, gallery.label)
    assert asked is not None, "the quickstart's model has classes"
    samples = gallery.pixels(seeds).permute(0, 2, 3, 1).numpy()
    reading = read_samples(store.read(range(len(store))), store.labels, samples, np.array(asked))
    lines, how, config = run.log_lines(), gallery.how, run.config
    calls = nfe(how, labeled=True)
    page.write_page(
        path,
        title="Handwritten digits, made from noise",
        lead=f"A diffusion model trained from scratch on {len(store):,} scanned digits, on this machine, just now.",
        headline=[
            ("samples read as the digit asked for", f"{reading.read_as_asked:.1%}"),
            ("held-out real digits read right", f"{reading.held_out_accuracy:.1%}"),
            ("images seen in training", f"{lines[-1]['images']:,}"),
            ("training", duration(lines[-1]["seconds"])),
            *([("with sampling and this page", duration(seconds))] if seconds is not None else []),
        ],
        sections=[
            page.Section(
                "Samples",
                "One column a digit. These are the first seeds, in order: none was picked.",
                [page.from_file(grid, f"Seeds 0 to {ROWS * len(config.class_names) - 1}.")],
            ),
            page.Section(
                "Real digits, to compare",
                "The first ones of each class, as training saw them.",
                [page.from_image(_real_grid(store), "Ten real digits a class.")],
            ),
            page.Section(
                "From noise to digit",
                "Sampling starts at pure noise and removes it step by step.",
                [
                    page.from_file(
                        strip,
                        "Four digits, from left to right. Above: what the sampler holds. Below: the clean image that "
                        "the network expects behind the noise at that moment.",
                    )
                ],
            ),
            page.Section(
                "Training",
                "The loss is the squared error of the network's output, averaged over all noise levels. It flattens "
                "early; the images go on improving.",
                [page.from_drawing(lambda: training_curves(lines), "Loss and learning rate over the images seen.")],
            ),
            page.Section(
                "Can they be read?",
                "A support vector machine trained on three quarters of the real digits reads "
                f"{reading.held_out_accuracy:.1%} of the other {reading.held_out} right. Of {reading.samples} samples "
                f"it reads {reading.read_as_asked:.1%} as the digit that was asked for, with guidance "
                f"{how.guidance:g}. Guidance above 1 makes digits clearer and less varied: this figure says that they "
                "are legible, not that they are as varied as real ones.",
                head=["asked for", *(f"read as {name}" for name in config.class_names)],
                rows=[
                    [name, *(count or "" for count in row)]
                    for name, row in zip(config.class_names, reading.confusion.tolist(), strict=True)
                ],
            ),
            *_evaluated(run, store, gallery, seeds),
            page.Section(
                "How it was made",
                rows=[
                    ["preset", f"{config.preset}, seed {config.seed}"],
                    ["images", f"{len(store):,}, {store.size[0]}x{store.size[1]} pixels, enlarged from 8x8"],
                    ["sampler", f"{how.sampler}, {how.steps} steps, {calls} function evaluations an image"],
                    ["again", "undiffuse sample " + str(run.folder)],
                ],
            ),
        ],
    )
    return reading


def _evaluated(run: Run, store: Store, gallery: Gallery, seeds: Sequence[int]) -> list[page.Section]:
    """What an evaluation says that needs no network: neighbors, copies and colors."""
    net, fake, real = pixels_net(), of_gallery(gallery, seeds, "samples"), of_store(store, run.config.data)
    work = Work(batch=500, share=Share(), device=choose_device())
    comparisons = measure(net, fake, [real], work)
    nearest = nearest_sections(fake, real, find_memorization(net, comparisons, work))
    return [
        page.Section(
            "As varied as real ones?",
            "Precision is the share of the samples that lie among the real digits, recall and coverage the share of "
            f"the real digits that lie among the samples. {net.distance} and {net.kernel} are what FID and KID are, of "
            "pixels: FID's network is not needed for them, nor for anything on this page, and undiffuse evaluate "
            "measures with it. " + " ".join(protocol.warnings(comparisons)),
            head=["metric", "value", "how"],
            rows=[[figure.metric, with_spread(figure), figure.note] for figure in comparisons[0].values],
        ),
        *nearest,
        color_section({"samples": color(fake), "real": color(real)}),
    ]


def _real_grid(store: Store) -> Image.Image:
    classes = len(store.class_names)
    of_class = [np.flatnonzero(store.labels == label)[:ROWS] for label in range(classes)]
    indices = np.stack(of_class, axis=1).reshape(-1)
    pixels = torch.from_numpy(store.read(indices)).permute(0, 3, 1, 2)
    return grids.grid(pixels, columns=classes)
