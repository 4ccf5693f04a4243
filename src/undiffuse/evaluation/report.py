"""What an evaluation found: metrics.json for programs, report.html for people."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from undiffuse.evaluation import plots, protocol
from undiffuse.evaluation.colors import CHANNELS, Color
from undiffuse.evaluation.metrics import Comparison, MetricValue, class_precision
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNet
from undiffuse.metrics.memorization import Memorization, sheet
from undiffuse.report import grids, page
from undiffuse.utils.files import write_atomically

VERSION = 1
"""Of metrics.json."""

GRID = 60
"""Images of a grid."""

PRECISION_NOTE = (
    "Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) are of the same "
    "features as the distance, and move with N and k. The original paper and torch-fidelity's default take VGG16 "
    "features for precision and recall: do not compare these with such."
)


@dataclass(frozen=True)
class Evaluation:
    """All that was found out."""

    title: str
    net: FeatureNet
    comparisons: Sequence[Comparison]
    """The first is the one that stands for all."""
    made_by: dict[str, Any]
    """How the samples were made: run, weights, sampler, seed and so on; empty for images from elsewhere."""
    colors: dict[str, Color]
    spaces: Sequence[Memorization] | str
    """Or why copies were not looked for."""
    bits: dict[str, Any]
    """Of held-out images, by estimate; or why there are none."""


def summary(found: Evaluation) -> dict[str, Any]:
    """What metrics.json holds; numbers that are not finite are null."""
    comparable, why = protocol.verdict(found.net, found.comparisons[0])
    return _finite(
        {
            "version": VERSION,
            "comparable_with_published": comparable,
            "why": why,
            "warnings": protocol.warnings(found.comparisons),
            "metrics": [asdict(figure) for figure in all_values(found)],
            "protocol": {
                **found.made_by,
                "samples": protocol.of_images(found.comparisons[0].fake.images),
                **protocol.of_features(found.net),
                "references": [protocol.of_reference(found.net, comparison) for comparison in found.comparisons],
                "versions": protocol.versions(),
            },
            "precision_by_class": [
                dict(zip(("class", "n_real", "n_fake", "precision"), row, strict=True))
                for row in class_precision(found.comparisons[0])
            ],
            "color": {name: asdict(of_set) for name, of_set in found.colors.items()},
            "memorization": [
                {
                    "space": space.space,
                    "control": space.control,
                    "median_distance_of_samples": space.samples.median().item(),
                    "median_distance_of_control": space.held_out.median().item(),
                    "ratio": space.ratio,
                    "nearer_than_99_percent_of_control": space.nearer_than_control,
                    "AuthPct": 100 * space.authentic,
                }
                for space in ([] if isinstance(found.spaces, str) else found.spaces)
            ],
            "bits_per_dim": found.bits,
        }
    )


def all_values(found: Evaluation) -> list[MetricValue]:
    """Of all comparisons, but once only what is of the samples alone."""
    first, *others = found.comparisons
    return [*first.values, *(f for each in others for f in each.values if f.metric != "Inception Score")]


def write(found: Evaluation, folder: Path) -> dict[str, Any]:
    """Writes metrics.json and report.html into `folder`, and returns what the first holds."""
    written = summary(found)
    write_atomically(folder / "metrics.json", json.dumps(written, indent=2, allow_nan=False) + "\n")
    first = found.comparisons[0]
    headline = [
        (f"{f.metric}, {f.split}", number(f.value))
        for f in all_values(found)
        if f.metric in (found.net.distance, found.net.kernel)
    ]
    headline += [(f.metric, number(f.value)) for f in first.values if f.metric in ("precision", "recall", "coverage")]
    page.write_page(
        folder / "report.html",
        title=found.title,
        lead=written["why"],
        headline=[*headline, ("samples", f"{len(first.fake):,}")],
        sections=_sections(found, written),
    )
    return written


def _sections(found: Evaluation, written: dict[str, Any]) -> list[page.Section]:
    first = found.comparisons[0]
    taken = "" if found.made_by else "Training images are taken to be the real ones. "
    return [
        _metrics(found, written),
        _images(found),
        *_extrapolation(found),
        *nearest_sections(first.fake.images, first.real.images, found.spaces, taken),
        color_section(found.colors),
        *_classes(written),
        *_bits(found),
        page.Section(
            "Everything that these figures depend on",
            "The same in metrics.json, for programs.",
            rows=flat(written["protocol"]),
        ),
    ]


def _metrics(found: Evaluation, written: dict[str, Any]) -> page.Section:
    return page.Section(
        "Metrics",
        " ".join([*written["warnings"], PRECISION_NOTE]),
        head=["metric", "value", "samples against real, how"],
        rows=[[f.metric, with_spread(f), _how(f)] for f in all_values(found)],
    )


def _how(figure: MetricValue) -> str:
    sizes = f"{figure.n_fake:,} against {figure.n_real:,} of {figure.split}"
    return "; ".join(filter(None, (sizes, figure.note, figure.spread_is and f"± {figure.spread_is}")))


def _images(found: Evaluation) -> page.Section:
    fake = found.comparisons[0].fake.images
    classes = len(fake.class_names)
    columns = classes if 1 < classes <= 16 else 10
    shown = [page.from_image(_grid(fake, columns), f"{fake.name}: the first ones, in order, none of them picked.")]
    for comparison in found.comparisons:
        real = comparison.real.images
        shown.append(page.from_image(_grid(real, columns, spread=True), f"Real: {real.what}, spread over the set."))
    return page.Section("Samples and real images", figures=shown)


def _extrapolation(found: Evaluation) -> list[page.Section]:
    line = found.comparisons[0].extrapolation
    if line is None:
        return []
    caption = f"{len(line.counts)} random subsets of the samples against all {len(found.comparisons[0].real):,} real."
    extrapolated = page.Section(
        "With infinitely many samples",
        f"The fewer samples, the larger {found.net.distance}, in proportion to 1/N (Chong & Forsyth 2020): the line "
        f"meets infinity at {number(line.at_infinity)} ± {number(line.standard_error)}. The bias of the real side "
        "stays in it.",
        [page.from_drawing(lambda: plots.extrapolation(line, found.net.distance), caption)],
        head=["samples", found.net.distance],
        rows=[[f"{n:,}", number(value)] for n, value in zip(line.counts, line.distances, strict=True)],
        side_by_side=True,
    )
    return [extrapolated]


def nearest_sections(
    samples: ImageSet, train: ImageSet, spaces: Sequence[Memorization] | str, first: str = ""
) -> list[page.Section]:
    """Nearest training images and their distances, with the control; `first` is said before everything else."""
    if isinstance(spaces, str):
        return [page.Section("Learnt by heart?", spaces)]
    tiles, shown = sheet(samples, train, list(spaces))
    rows = ", then ".join(f"its nearest training image in {space.space}" for space in spaces)
    names = ", ".join(str(i) for i in shown)
    looked_at = page.Section(
        "Learnt by heart?",
        f"{first}A model that copies makes samples that lie nearer to training images than other real images do: a "
        "ratio well below 1, and a low AuthPct, the share of samples that are farther from their nearest training "
        "image than that is from the next one (Alaa et al. 2022). Such figures miss much (Stein et al. 2023), so "
        "look: the right half of the sheet shows the most suspicious samples.",
        [
            page.from_image(
                tiles, f"From above: a sample, {rows}. Left the first samples, right the nearest ones: {names}."
            )
        ],
    )
    measured = page.Section(
        "How near to training images?",
        f"The control is {spaces[0].control}: what distance an image has that cannot have been copied.",
        [page.from_drawing(lambda: plots.distances(spaces), "Distances to the nearest training image.")],
        head=["", *(space.space for space in spaces)],
        rows=[
            ["median distance, samples", *(number(space.samples.median().item()) for space in spaces)],
            ["median distance, control", *(number(space.held_out.median().item()) for space in spaces)],
            ["ratio of the two", *(number(space.ratio) for space in spaces)],
            ["samples nearer than 99% of the control", *(f"{space.nearer_than_control:.1%}" for space in spaces)],
            ["AuthPct", *(f"{100 * space.authentic:.1f}" for space in spaces)],
        ],
        side_by_side=True,
    )
    return [looked_at, measured]


def color_section(colors: dict[str, Color]) -> page.Section:
    """Mean and standard deviation of each channel, samples beside data; one channel where all is gray."""
    gray = all(len(set(of_set.mean)) == 1 for of_set in colors.values())
    channels = ("gray",) if gray else CHANNELS
    rows = []
    for name, of_set in colors.items():
        values = zip(of_set.mean, of_set.sd, channels, strict=False)
        rows.append([name, *(f"{mean:.1f} ± {sd:.1f}" for mean, sd, _ in values), f"{of_set.images:,}"])
    return page.Section(
        "Colors",
        "Mean ± standard deviation of each channel over all pixels, 0 to 255. A sampler at fault often shifts them.",
        head=["", *channels, "images"],
        rows=rows,
    )


def _classes(written: dict[str, Any]) -> list[page.Section]:
    rows = written["precision_by_class"]
    if not rows:
        return []
    of_classes = page.Section(
        "Precision by class",
        "Share of the samples of a class that lie among the real images of that class (k = 3). It says which classes "
        "the model draws well; a sample of the wrong class counts as imprecise.",
        head=["class", "precision", "N real", "N fake"],
        rows=[[row["class"], number(row["precision"]), f"{row['n_real']:,}", f"{row['n_fake']:,}"] for row in rows],
    )
    return [of_classes]


def _bits(found: Evaluation) -> list[page.Section]:
    if "skipped" in found.bits or not found.bits:
        return [page.Section("Bits/dim", found.bits["skipped"])] if found.bits else []
    rows = []
    for name, value in found.bits.items():
        error = value["standard_error"]
        spread = "" if error is None else f"± {error:.3f}"
        how = ", ".join(f"{key} {setting}" for key, setting in value["protocol"].items())
        rows.append([name, f"{value['bits_per_dim']:.3f}", spread, f"{value['images']:,}", value["split"], how])
    of_bits = page.Section(
        "Bits/dim",
        "How many bits a pixel's channel costs to encode with this model; fewer is better. Both are upper bounds.",
        head=["estimate", "bits/dim", "standard error", "images", "split", "how"],
        rows=rows,
    )
    return [of_bits]


def _grid(of_set: ImageSet, columns: int, spread: bool = False) -> Image.Image:
    taken = min(GRID, len(of_set))
    indices = np.linspace(0, len(of_set) - 1, taken).round().astype(int) if spread else np.arange(taken)
    return grids.grid(torch.from_numpy(of_set.read(indices)).permute(0, 3, 1, 2), columns)


def with_spread(figure: MetricValue) -> str:
    return number(figure.value) + spread(figure.spread)


def spread(value: float | None) -> str:
    """With two figures that matter; nothing for none."""
    return "" if value is None else f" ± {value:,.0f}" if value >= 100 else f" ± {value:.2g}"


def number(value: float) -> str:
    """Three or more figures that matter, whatever the size."""
    if not math.isfinite(value):
        return "none"
    if abs(value) < 1e-6:
        return "0"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as rows of a table."""
    if isinstance(values, dict):
        return [row for key, value in values.items() for row in flat(value, f"{prefix} {key}".strip())]
    if isinstance(values, list):
        return [row for i, value in enumerate(values, 1) for row in flat(value, f"{prefix} {i}")]
    return [(prefix.replace("_", " "), values)]
