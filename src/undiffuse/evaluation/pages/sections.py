"""The sections of an evaluation's page; the quickstart's page has some of them too."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from undiffuse.data.pixels import to_nchw
from undiffuse.evaluation.colors import Color
from undiffuse.evaluation.memorization import FeatureMemorization, neighbor_sheet
from undiffuse.evaluation.metrics import MetricValue
from undiffuse.evaluation.numbers import flat, number, with_spread
from undiffuse.evaluation.pages import plots
from undiffuse.features.image_sets import ImageSet
from undiffuse.metrics.frechet import Extrapolation
from undiffuse.report import grids, page
from undiffuse.report.curves import held_out_curves
from undiffuse.runs.finding import finding
from undiffuse.utils.errors import Skipped

GRID_IMAGES = 60

CHANNEL_NAMES = ("red", "green", "blue")

PRECISION_NOTE = (
    "Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) are computed on the "
    "same features as the distance, and depend on N and k. The original paper and torch-fidelity's default use VGG16 "
    "features for precision and recall, so their values cannot be compared with these."
)


def metrics_section(values: Sequence[MetricValue], warnings: Sequence[str]) -> page.Section:
    """Every value with its spread and what it depends on."""
    return page.Section(
        "Metrics",
        " ".join([*warnings, PRECISION_NOTE]),
        head=["metric", "value", "samples against real images, details"],
        rows=[[value.metric, with_spread(value.value, value.spread), _details(value)] for value in values],
    )


def _details(value: MetricValue) -> str:
    sizes = f"{value.n_fake:,} against {value.n_real:,} of {value.split}"
    return "; ".join(filter(None, (sizes, value.note, value.spread_is and f"± {value.spread_is}")))


def training_sections(lines: Sequence[dict[str, Any]]) -> list[page.Section]:
    """The loss on held-out images while training, and what it says; nothing if it was not measured."""
    measured = [line for line in lines if "held_out_loss" in line]
    if not measured:
        return []
    caption = "Above: the loss over the images seen. Below: the held-out loss at each noise level, early to late."
    return [page.Section("Training", finding(measured[-1]), [page.from_plot(lambda: held_out_curves(lines), caption)])]


def images_section(fake: ImageSet, references: Sequence[ImageSet]) -> page.Section:
    """A grid of the samples and one of each set of real images."""
    classes = len(fake.class_names)
    columns = classes if 1 < classes <= 16 else 10
    figures = [page.from_image(_grid(fake, columns), f"{fake.name}: the first ones, in order, not selected.")]
    for real in references:
        figures.append(
            page.from_image(_grid(real, columns, spread=True), f"Real: {real.description}, spread over the set.")
        )
    return page.Section("Samples and real images", figures=figures)


def _grid(images: ImageSet, columns: int, spread: bool = False) -> Image.Image:
    count = min(GRID_IMAGES, len(images))
    indices = np.linspace(0, len(images) - 1, count).round().astype(int) if spread else np.arange(count)
    return grids.grid_for_page(to_nchw(images.read(indices)), columns)


def extrapolation_section(line: Extrapolation, distance: str, n_real: int) -> page.Section:
    """The distance at several N, and the line through them to infinitely many samples."""
    caption = f"{len(line.counts)} random subsets of the samples against all {n_real:,} real images."
    return page.Section(
        "With infinitely many samples",
        f"The fewer samples, the larger {distance}, in proportion to 1/N (Chong & Forsyth 2020). The line reaches "
        f"{number(line.at_infinity)} ± {number(line.standard_error)} at infinity. The bias that comes from the number "
        "of real images remains.",
        [page.from_plot(lambda: plots.extrapolation(line, distance), caption)],
        head=["samples", distance],
        rows=[[f"{n:,}", number(value)] for n, value in zip(line.counts, line.distances, strict=True)],
        side_by_side=True,
    )


def memorization_sections(
    samples: ImageSet, train: ImageSet, spaces: Sequence[FeatureMemorization] | Skipped, assumption: str = ""
) -> list[page.Section]:
    """Nearest training images and their distances, next to the control; the text begins with `assumption`."""
    if isinstance(spaces, Skipped):
        return [page.Section("Memorized?", spaces.reason)]
    sheet, shown = neighbor_sheet(samples, train, spaces)
    rows = ", then ".join(f"its nearest training image in {space.features}" for space in spaces)
    numbers = ", ".join(str(i) for i in shown)
    nearest = page.Section(
        "Memorized?",
        f"{assumption}Samples of a model that copies are closer to training images than other real images are: the "
        "ratio is well below 1 and AuthPct is low, the percentage of samples that are farther from their nearest "
        "training image than that image is from its own nearest neighbor (Alaa et al. 2022). Such metrics miss a lot "
        "(Stein et al. 2023), so look: the right half of the sheet shows the most suspicious samples.",
        [
            page.from_image(
                sheet, f"From the top: a sample, {rows}. Left: the first samples. Right: the closest ones. {numbers}."
            )
        ],
    )
    return [nearest, _distances_section(spaces)]


def _distances_section(spaces: Sequence[FeatureMemorization]) -> page.Section:
    found = [space.found for space in spaces]
    return page.Section(
        "How close to training images?",
        f"The control is {spaces[0].control}: distances of images that cannot have been copied.",
        [page.from_plot(lambda: plots.nearest_distances(spaces), "Distances to the nearest training image.")],
        head=["", *(space.features for space in spaces)],
        rows=[
            ["median distance, samples", *(number(each.samples.median().item()) for each in found)],
            ["median distance, control", *(number(each.control.median().item()) for each in found)],
            ["ratio of the two", *(number(each.ratio) for each in found)],
            ["samples closer than 99% of the control", *(f"{each.nearer_than_control:.1%}" for each in found)],
            ["AuthPct", *(f"{100 * each.authentic:.1f}" for each in found)],
        ],
        side_by_side=True,
    )


def color_section(colors: Mapping[str, Color]) -> page.Section:
    """Mean and standard deviation of each channel, samples next to data; one channel if all images are gray."""
    gray = all(len(set(color.mean)) == 1 for color in colors.values())
    channels = ("gray",) if gray else CHANNEL_NAMES
    rows = []
    for name, color in colors.items():
        values = zip(color.mean, color.sd, channels, strict=False)
        rows.append([name, *(f"{mean:.1f} ± {sd:.1f}" for mean, sd, _ in values), f"{color.images:,}"])
    return page.Section(
        "Colors",
        "Mean ± standard deviation of each channel over all pixels, 0 to 255. A faulty sampler often shifts them.",
        head=["", *channels, "images"],
        rows=rows,
    )


def class_section(rows: Sequence[Mapping[str, Any]]) -> page.Section:
    """Precision of each class; the rows are those of metrics.json."""
    return page.Section(
        "Precision by class",
        "Fraction of a class's samples that lie among the real images of that class (k = 3). It shows which classes "
        "the model does well; a sample of the wrong class counts as imprecise.",
        head=["class", "precision", "N real", "N fake"],
        rows=[[row["class"], number(row["precision"]), f"{row['n_real']:,}", f"{row['n_fake']:,}"] for row in rows],
    )


def bits_section(bits: Mapping[str, Any] | Skipped) -> page.Section:
    """Bits/dim of held-out images, by both estimates."""
    if isinstance(bits, Skipped):
        return page.Section("Bits/dim", bits.reason)
    rows = []
    for name, value in bits.items():
        error = value["standard_error"]
        spread = "" if error is None else f"± {error:.3f}"
        details = ", ".join(f"{key} {setting}" for key, setting in value["protocol"].items())
        rows.append([name, f"{value['bits_per_dim']:.3f}", spread, f"{value['images']:,}", value["split"], details])
    return page.Section(
        "Bits/dim",
        "How many bits a pixel's channel costs to encode with this model; fewer is better. All are upper bounds.",
        head=["estimate", "bits/dim", "standard error", "images", "split", "details"],
        rows=rows,
    )


def protocol_section(protocol: Mapping[str, Any], text: str) -> page.Section:
    """Everything that was recorded, one row each."""
    return page.Section("Everything that these values depend on", text, rows=flat(protocol))
