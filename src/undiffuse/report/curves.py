"""Curves of training, from the lines of log.jsonl."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from undiffuse.report.style import SOFT, new_figure

SMOOTHED_FRACTION = 0.02
"""Fraction of a curve that its smoothed line averages over."""

STAGES = 4
"""Curves over the noise level: evenly spread over training, up to its end."""


def training_curves(lines: Sequence[dict[str, Any]]) -> Figure:
    """Loss and learning rate over the images seen."""
    finite = [line for line in lines if line["loss"] is not None]
    images = np.array([line["images"] for line in finite])
    loss = np.array([line["loss"] for line in finite])
    figure, (above, below) = new_figure(4.0, rows=2)
    above.plot(images, loss, color="C0", alpha=0.35, linewidth=0.8, label="as logged")
    above.plot(images, smoothed(loss), color="C0", label="smoothed")
    above.set(ylabel="loss", yscale="log")
    above.legend()
    below.plot(images, [line["learning_rate"] for line in finite], color="C0")
    below.set(xlabel="images seen", ylabel="learning rate")
    for axes in (above, below):
        _count_images(axes)
    return figure


def held_out_curves(lines: Sequence[dict[str, Any]]) -> Figure:
    """Held-out loss over the images seen, beside the loss in training; and over the noise level, from early to late."""
    finite = [line for line in lines if line["loss"] is not None]
    measured = [line for line in lines if "held_out_loss" in line]
    images = np.array([line["images"] for line in measured])
    figure, (above, below) = new_figure(4.6, rows=2)
    smooth = smoothed(np.array([line["loss"] for line in finite]))
    above.plot([line["images"] for line in finite], smooth, color=rcParams[SOFT], linewidth=1, label="in training")
    for name, fmt, color in (("training", "s--", "C1"), ("held_out", "o-", "C0")):
        means = [np.mean(line[f"{name}_losses"]) for line in measured]
        above.plot(images, means, fmt, color=color, label=f"{name.replace('_', '-')} images, EMA")
    above.set(xlabel="images seen", ylabel="loss", yscale="log")
    above.legend()
    _count_images(above)
    chosen = sorted({round(i) for i in np.linspace(0, len(measured) - 1, STAGES)})
    for i, line in enumerate(measured[k] for k in chosen):
        strength = (i + 1) / len(chosen)
        label = f"{count_text(line['images'])} images"
        below.plot(line["sigmas"], line["held_out_losses"], "o-", color="C0", alpha=strength, label=label)
    below.set(xlabel="noise level sigma", ylabel="held-out loss", xscale="log")
    below.legend()
    return figure


def _count_images(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(lambda value, _: count_text(value))


def count_text(images: float) -> str:
    """4k, 1.5M."""
    return f"{images / 1000:.4g}k" if images < 1e6 else f"{images / 1e6:.4g}M"


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means over the last few values up to each, `SMOOTHED_FRACTION` of all."""
    width = max(1, round(len(values) * SMOOTHED_FRACTION))
    sums = np.cumsum(np.concatenate([[0.0], values]))
    starts = np.maximum(np.arange(len(values)) - width + 1, 0)
    ends = np.arange(len(values)) + 1
    return (sums[ends] - sums[starts]) / (ends - starts)
