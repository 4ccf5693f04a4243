"""Plots of the pages, each a matplotlib figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

from undiffuse.evaluation.memorization import FeatureMemorization
from undiffuse.metrics.frechet import Extrapolation
from undiffuse.report.style import SOFT, new_figure


def extrapolation(line: Extrapolation, distance: str) -> Figure:
    """Distances over 1/N and the line through them to infinitely many samples."""
    figure, (axes,) = new_figure(2.6)
    x = 1 / np.array(line.counts)
    ends = [line.at_infinity, line.at_infinity + line.slope * x.max()]
    axes.plot([0, x.max()], ends, color=rcParams[SOFT], linewidth=1)
    axes.plot(x, line.distances, "o", color="C0", label="subsets")
    error = line.standard_error
    axes.errorbar([0], [line.at_infinity], [error], fmt="s", color="C1", capsize=3, label="infinitely many")
    shown = sorted({line.counts[0], line.counts[len(line.counts) // 2], line.counts[-1]})
    axes.set_xticks([0, *(1 / n for n in shown)], ["∞", *(f"{n:,}" for n in shown)])
    axes.set(xlabel="samples N, on a scale of 1/N", ylabel=distance)
    axes.legend()
    return figure


def nearest_distances(spaces: Sequence[FeatureMemorization]) -> Figure:
    """How far samples and the control are from their nearest training image."""
    figure, all_axes = new_figure(0.5 + 1.7 * len(spaces), rows=len(spaces))
    for axes, space in zip(all_axes, spaces, strict=True):
        samples, control = space.found.samples.numpy(), space.found.control.numpy()
        edges = np.linspace(0, max(np.quantile(samples, 0.995), np.quantile(control, 0.995)) or 1, 40).tolist()
        axes.hist(control, edges, density=True, color=rcParams[SOFT], alpha=0.5, label=space.control)
        axes.hist(samples, edges, density=True, histtype="step", color="C0", linewidth=1.6, label="samples")
        axes.set(xlabel=f"distance in {space.features}", yticks=[])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=2, loc="outside upper center", fontsize=8)
    return figure
