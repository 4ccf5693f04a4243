"""Charts of the statistics, legible on a phone. Their colors come from matplotlib's settings: see `report.style`."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, PercentFormatter

from undiffuse.exploration.colors import Colors
from undiffuse.exploration.inventory import Inventory
from undiffuse.exploration.noising import Schedule
from undiffuse.report.style import new_axes, shortened
from undiffuse.utils.text import size_text

MAX_NAMED = 30
"""Up to this many classes get a bar each, with their name; more become one outline."""

CHANNEL_COLORS = {"red": "C1", "green": "C2", "blue": "C0", "gray": "C0", "alpha": "C3"}
DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1.2, 2)))


def class_balance(inventory: Inventory) -> Figure:
    """Images by class, the largest first, colored by split."""
    classes = sorted(inventory.classes, key=lambda one: -one.images)
    named = len(classes) <= MAX_NAMED
    least, most = classes[-1].images, classes[0].images
    each = f"{most:,} images each" if least == most else f"{least:,} to {most:,} images each"
    figure, axes = new_axes(0.75 + 0.19 * len(classes) if named else 3.2, f"{len(classes)} classes: {each}")
    before = np.zeros(len(classes))
    for split in inventory.splits or [""]:
        counts = np.array([c.splits[split] if split else c.images for c in classes], dtype=float)
        places = np.arange(len(classes)) + (not named)
        if named:
            axes.barh(places, counts, 0.78, left=before, label=split)
        else:
            axes.bar(places, counts, 1.0, bottom=before, label=split)
        before = before + counts
    if named:
        axes.set_yticks(range(len(classes)), [shortened(c.name) for c in classes], parse_math=False)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="images")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        axes.set(xlabel="classes, from the largest to the smallest", ylabel="images", xlim=(0.5, len(classes) + 0.5))
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    if inventory.splits:
        figure.legend(loc="outside lower center", ncols=len(inventory.splits))
    return figure


def image_sizes(inventory: Inventory) -> Figure:
    """Width against height of the files; larger dots stand for more images."""
    shapes = inventory.shapes()
    heights, widths = np.array(list(shapes)).T
    counts = np.array(list(shapes.values()))
    sizes = list(shapes)
    title = f"All images are {size_text(sizes[0])} pixels" if len(sizes) == 1 else f"{len(sizes):,} image sizes"
    figure, axes = new_axes(3.2, title)
    longest = max(heights.max(), widths.max())
    wide = longest > 8 * min(heights.min(), widths.min())
    if wide:
        axes.set(xscale="log", yscale="log")
    low = min(heights.min(), widths.min()) * 0.8 if wide else 0
    reach = np.array([low or longest * 0.02, longest * (1.3 if wide else 1.08)])
    for ratio, label in ((1.0, "1:1"), (1.5, "3:2"), (1 / 1.5, "2:3")):
        axes.plot(reach * min(1, ratio), reach * min(1, 1 / ratio), color=rcParams["ytick.color"], lw=0.8, ls=":")
        end = reach[1] * np.array([min(1, ratio), min(1, 1 / ratio)])
        paper = {"facecolor": rcParams["axes.facecolor"], "linewidth": 0, "pad": 1.5}
        axes.annotate(label, end, fontsize=8, color=rcParams["ytick.color"], ha="right", va="top", bbox=paper)
    area = 14 + 500 * counts / counts.sum()
    axes.scatter(
        widths, heights, area, color="C0", alpha=0.55, linewidths=0.5, edgecolors=rcParams["text.color"], clip_on=False
    )
    axes.set(xlabel="width (pixels)", ylabel="height (pixels)", xlim=(low, reach[1]), ylim=(low, reach[1]))
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_minor_formatter(NullFormatter())
    return figure


def channel_histograms(colors: Colors) -> Figure:
    """The fraction of pixels at each level, per channel, and the channels' means."""
    figure, axes = new_axes(3.2, "Brightness of the pixels")
    for channel, dashes in zip(colors.channels, DASHES, strict=False):
        # Levels 0 and 255 hold everything that is clipped, often far more than the rest: they are in the table instead.
        fraction = np.array(channel.histogram[1:-1]) / sum(channel.histogram)
        color, label = CHANNEL_COLORS[channel.name], f"{channel.name}, mean {channel.mean:.0f}"
        axes.plot(range(1, 255), fraction, color=color, ls=dashes, label=label)
        axes.axvline(channel.mean, color=color, lw=0.8, ls=dashes)
    axes.set(xlabel="level, from 0 to 255", ylabel="fraction of pixels", xlim=(0, 255))
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # Room for the legend.
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.legend()
    return figure


def signal_to_noise(schedules: Sequence[Schedule]) -> Figure:
    """The signal-to-noise ratio over t / T, on a log axis."""
    figure, axes = new_axes(3.2, "Signal-to-noise ratio over time")
    for schedule, dashes in zip(schedules, DASHES, strict=False):
        axes.plot(_times(schedule), schedule.snr.numpy(), ls=dashes, label=schedule.name)
    axes.axhline(1, color=rcParams["ytick.color"], lw=0.8)
    axes.annotate(
        "as much noise as signal", (0.98, 1), fontsize=8, ha="right", va="bottom", color=rcParams["ytick.color"]
    )
    axes.set(xlabel="t / T", ylabel="signal-to-noise ratio", yscale="log", xlim=(0, 1), ylim=(1e-6, 1e5))
    axes.legend()
    return figure


def signal_kept(schedules: Sequence[Schedule]) -> Figure:
    """The fraction of the clean image's amplitude that remains, over t / T."""
    figure, axes = new_axes(3.2, "How much of the image remains")
    for schedule, dashes in zip(schedules, DASHES, strict=False):
        axes.plot(_times(schedule), schedule.signal.numpy(), ls=dashes, label=schedule.name)
    axes.set(xlabel="t / T", ylabel="signal, √ᾱ", xlim=(0, 1), ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend()
    return figure


def _times(schedule: Schedule) -> np.ndarray:
    """t / T."""
    return np.arange(1, len(schedule.sigma) + 1) / len(schedule.sigma)
