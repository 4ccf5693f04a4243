"""The figures of the report: what they are drawn from, how, and what their captions say."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from undiffuse.exploration import charts, sheets
from undiffuse.exploration.before_after import BeforeAfter
from undiffuse.exploration.named_duplicates import ExamplePair
from undiffuse.exploration.noising import Schedule
from undiffuse.exploration.samples import Samples
from undiffuse.exploration.statistics import Statistics
from undiffuse.report.style import Plot


@dataclass(frozen=True)
class FigureData:
    """The images and curves that figures need besides the statistics."""

    samples: Samples
    before_after: Sequence[BeforeAfter]
    mean_image: Float[np.ndarray, "h w c"]
    surest_pairs: Sequence[ExamplePair]
    doubtful_pairs: Sequence[ExamplePair]
    schedules: tuple[Schedule, ...]
    seed: int
    """Of the samples, their augmentation and the noise."""


CAPTIONS = {
    "classes": "Images in each class, the largest class first.",
    "sizes": "Width and height of the files, upright. Larger dots: more images. Dotted lines: common proportions.",
    "framing": "From the image that a crop cuts most to the one that it cuts least. Left: the original, with what a "
    "crop cuts off dimmed. Right: what training reads.",
    "samples": "Drawn at random, evenly over the classes.",
    "augmented": "The same images in the same places, each transformed once as listed.",
    "histograms": "The fraction of pixels at each level. Levels 0 and 255 are in the table. Thin lines: means.",
    "mean": "A clear shape means that the images agree there: centered objects, a common background or a border.",
    "duplicates": "One pair from each group of duplicates.",
    "doubtful": "Pairs that barely count as duplicates: they show how far to trust the number.",
    "noise": "The same image, the same noise, the same t. Below each pair: the fraction of the image's amplitude that "
    "remains.",
    "snr": "alpha bar / (1 - alpha bar) over t / T, on a logarithmic axis. Below 1 there is more noise than signal.",
    "signal": "The factor of the clean image in DDPM's x_t. The linear schedule leaves little of it in the last "
    "quarter; the cosine schedule uses the whole range.",
}
"""The text under each figure, by the name of its file."""


def plots(statistics: Statistics, data: FigureData) -> dict[str, Plot]:
    """The figures that these images have, by the name of their file, in the order of the report."""
    drawable: dict[str, Plot] = {
        "classes": partial(charts.class_balance, statistics.inventory),
        "sizes": partial(charts.image_sizes, statistics.inventory),
        "framing": partial(sheets.before_after, data.before_after, statistics.size, statistics.fit),
        "samples": partial(sheets.before_augmentation, data.samples),
        "augmented": partial(sheets.after_augmentation, data.samples),
        "histograms": partial(charts.channel_histograms, statistics.colors),
        "mean": partial(sheets.mean_image, data.mean_image),
        "duplicates": partial(sheets.duplicates, data.surest_pairs, "The surest duplicates"),
        "doubtful": partial(sheets.duplicates, data.doubtful_pairs, "The least certain duplicates"),
        "noise": partial(sheets.noise, data.samples.before[0], data.schedules, data.seed),
        "snr": partial(charts.signal_to_noise, data.schedules),
        "signal": partial(charts.signal_kept, data.schedules),
    }
    available = {
        "classes": bool(statistics.inventory.classes),
        "sizes": len(statistics.inventory.sizes) > 1,
        "framing": bool(data.before_after),
        "duplicates": bool(data.surest_pairs),
        "doubtful": bool(data.doubtful_pairs),
    }
    return {name: plot for name, plot in drawable.items() if available.get(name, True)}
