"""Plots of a distance against what sampling costs: a curve for each run and sampler."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rcParams
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
    """NFE, seconds per image, or what else the distance is drawn against."""
    distance: float
    spread: float
    """One standard deviation; 0 if it is not known."""


Curves = Mapping[str, Sequence[Point]]
"""Points by the name of the run and sampler."""


def one(panels: Mapping[str, Curves], cost: str, distance: str) -> Figure:
    """One kind of cost, as wide as a phone. A curve looks the same as with the other kinds."""
    curves = panels[cost]
    figure, (axes,) = new_figure(2.8 + 0.18 * len(curves))
    _draw(axes, curves, cost, distance, _styles(panels))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=_columns(curves, 2), fontsize=8)
    return figure


def side_by_side(panels: Mapping[str, Curves], distance: str) -> Figure:
    """All kinds of cost in one figure, with a legend for all of them."""
    figure = NotebookFigure(figsize=(WIDTH * len(panels), 3.6), layout="constrained")
    styles = _styles(panels)
    for axes, (cost, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw(axes, curves, cost, distance, styles)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = _columns(next(iter(panels.values())), 2 * len(panels))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def _columns(curves: Curves, most: int) -> int:
    """Of the legend, as many as fit."""
    return most if max(map(len, curves), default=0) <= LONGEST_IN_COLUMN else max(1, most // 2)


def _styles(panels: Mapping[str, Curves]) -> dict[str, dict[str, Any]]:
    """How each curve is drawn, in all panels alike: one may lack curves that another has."""
    colors = [each["color"] for each in rcParams["axes.prop_cycle"]]
    names = dict.fromkeys(name for curves in panels.values() for name in curves)
    return {
        name: {
            "color": colors[i % len(colors)],
            "linestyle": DASHES[i % len(DASHES)],
            # Of the same color, each has another.
            "marker": MARKERS[(i + i // len(colors)) % len(MARKERS)],
        }
        for i, name in enumerate(names)
    }


def _draw(axes: Axes, curves: Curves, cost: str, distance: str, styles: Mapping[str, Mapping[str, Any]]) -> None:
    for name, points in curves.items():
        costs, distances, spreads = np.array(sorted(points)).T
        style = styles[name]
        axes.plot(costs, distances, label=name, **style)
        if spreads.any():
            low, high = distances - spreads, distances + spreads
            axes.fill_between(costs, low, high, color=style["color"], alpha=BAND, linewidth=0)
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
