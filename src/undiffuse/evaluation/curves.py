"""Curves of a training run, from its log."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from undiffuse.report.style import new_figure

SMOOTHED_OVER = 0.02
"""Share of the curve that its smoothed line averages over."""


def training_curves(lines: Sequence[dict[str, Any]]) -> Figure:
    """Loss and learning rate over the images seen."""
    finite = [line for line in lines if line["loss"] is not None]
    images = np.array([line["images"] for line in finite])
    loss = np.array([line["loss"] for line in finite])
    figure, (above, below) = new_figure(4.0, rows=2)
    above.plot(images, loss, color="C0", alpha=0.35, linewidth=0.8, label="as logged")
    above.plot(images, _smoothed(loss), color="C0", label="smoothed")
    above.set(ylabel="loss", yscale="log")
    above.legend()
    below.plot(images, [line["learning_rate"] for line in finite], color="C0")
    below.set(xlabel="images seen", ylabel="learning rate")
    for axes in (above, below):
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value < 1e6 else f"{value / 1e6:g}M")
    return figure


def _smoothed(values: np.ndarray) -> np.ndarray:
    width = max(1, round(len(values) * SMOOTHED_OVER))
    sums = np.cumsum(np.concatenate([[0.0], values]))
    starts = np.maximum(np.arange(len(values)) - width + 1, 0)
    ends = np.arange(len(values)) + 1
    return (sums[ends] - sums[starts]) / (ends - starts)
