"""Plots of a distance against what sampling costs: a curve for each run and sampler."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from undiffuse.report.style import WIDTH, NotebookFigure, new_figure

DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
"""Curves differ in these too, for eyes and printers without colors."""

TICK_RATIO = 1.3
"""A tick is at least this many times the one before it."""

ROUND = [digit * 10.0**power for power in range(-7, 6) for digit in (1, 2, 5)]

LOG_SCALE_FROM = 20
"""If distances differ by more than this factor, their scale is logarithmic."""

BAND = 0.18
"""Opacity of the spread around a curve."""

LONGEST_IN_COLUMN = 24
"""Characters of a name, for two columns of them to fit below a plot."""


class Point(NamedTuple):
    cost: float
    """NFE or seconds per image."""
    distance: float
    spread: float
    """One standard deviation; 0 if it is not known."""


Curves = Mapping[str, Sequence[Point]]
"""Points by the name of the run and sampler."""


def one(curves: Curves, cost: str, distance: str) -> Figure:
    """One kind of cost, as wide as a phone."""
    figure, (axes,) = new_figure(2.8 + 0.18 * len(curves))
    _draw(axes, curves, cost, distance)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=_columns(curves, 2), fontsize=8)
    return figure


def side_by_side(panels: Mapping[str, Curves], distance: str) -> Figure:
    """All kinds of cost in one figure, with a legend for all of them."""
    figure = NotebookFigure(figsize=(WIDTH * len(panels), 3.6), layout="constrained")
    for axes, (cost, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw(axes, curves, cost, distance)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = _columns(panels["NFE"], 2 * len(panels))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def _columns(curves: Curves, most: int) -> int:
    """Of the legend, as many as fit."""
    return most if max(map(len, curves), default=0) <= LONGEST_IN_COLUMN else max(1, most // 2)


def _draw(axes: Axes, curves: Curves, cost: str, distance: str) -> None:
    for i, (name, points) in enumerate(curves.items()):
        costs, distances, spreads = np.array(sorted(points)).T
        dashes, marker = DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]
        axes.plot(costs, distances, linestyle=dashes, marker=marker, color=f"C{i}", label=name)
        if spreads.any():
            axes.fill_between(costs, distances - spreads, distances + spreads, color=f"C{i}", alpha=BAND, linewidth=0)
    axes.set(xlabel=f"{cost}, log scale", ylabel=distance, xscale="log")
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return
    lowest, highest = min(point.cost for point in points), max(point.cost for point in points)
    inside = [tick for tick in ROUND if lowest <= tick <= highest]
    ticks = _spread_out(inside if cost != "NFE" and len(inside) > 1 else {point.cost for point in points})
    axes.set_xticks(ticks, [f"{tick:.2g}" if tick < 1 else f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    distances = [point.distance for point in points]
    if 0 < LOG_SCALE_FROM * min(distances) < max(distances):
        axes.set_yscale("log")
        lowest, highest = axes.get_ylim()
        axes.set_yticks(ticks := [tick for tick in ROUND if lowest <= tick <= highest], [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)


def _spread_out(costs: Iterable[float]) -> list[float]:
    """In order, without those too close to the one before."""
    ticks: list[float] = []
    for cost in sorted(costs):
        ticks += [cost] if not ticks or cost >= TICK_RATIO * ticks[-1] else []
    return ticks
