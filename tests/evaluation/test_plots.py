"""Plots of an evaluation show all that they are drawn from."""

import numpy as np
import pytest
import torch
from helpers.features import context, image_set, random_pixels
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Polygon

from undiffuse.evaluation.memorization import FeatureMemorization, find_memorization
from undiffuse.evaluation.pages import plots
from undiffuse.metrics.frechet import fit_line
from undiffuse.report.style import LIGHT, drawn_in
from undiffuse.utils.errors import Skipped

COUNTS = np.array([500, 750, 1000])


@pytest.fixture
def spaces() -> list[FeatureMemorization]:
    measurements = context().measure(image_set(random_pixels(40, seed=0)), [image_set(random_pixels(50, seed=1))])
    spaces = find_memorization(measurements, context())
    assert not isinstance(spaces, Skipped)
    return [*spaces, *spaces]


def test_the_line_passes_through_the_subsets_to_infinitely_many_samples() -> None:
    distances = 10 + 2000 / COUNTS
    with drawn_in(LIGHT):
        axes = plots.extrapolation(fit_line(COUNTS, distances), "FD").axes[0]
    line, subsets = axes.lines[:2]
    assert subsets.get_label() == "subsets"
    np.testing.assert_allclose(np.asarray(subsets.get_xydata()), np.stack([1 / COUNTS, distances], axis=1))
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[0, 10], [1 / 500, 14]])
    (infinity,) = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    np.testing.assert_allclose(np.asarray(infinity.lines[0].get_xydata()), [[0, 10]])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["subsets", "infinitely many"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["∞", "500", "750", "1,000"]


def test_samples_are_outlined_above_their_control_in_every_space(spaces: list[FeatureMemorization]) -> None:
    with drawn_in(LIGHT):
        figure = plots.nearest_distances(spaces)
    assert len(figure.axes) == len(spaces) == 2
    for axes in figure.axes:
        (outline,) = [each for each in axes.patches if isinstance(each, Polygon)]
        assert outline.get_linewidth() > 0
        assert not outline.get_fill()
        assert len(axes.patches) > 1, "the bars of the control"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [spaces[0].control, "samples"]


def test_distances_that_are_all_zero_can_be_drawn() -> None:
    """As of copies, in a training set of nothing but copies."""
    pixels = np.zeros((20, 6, 6, 3), np.uint8)
    found = find_memorization(context().measure(image_set(pixels), [image_set(pixels)]), context())
    assert not isinstance(found, Skipped)
    assert torch.count_nonzero(found[0].found.samples) == 0
    with drawn_in(LIGHT):
        assert plots.nearest_distances(found).axes[0].get_xlim()[1] > 0
