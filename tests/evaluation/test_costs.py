"""Curves of quality against cost look alike wherever they are drawn."""

from collections.abc import Iterable

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from undiffuse.evaluation.pages import costs
from undiffuse.evaluation.pages.costs import Point
from undiffuse.report.style import LIGHT, drawn_in

NAMES = [f"sampler {i}" for i in range(7)]
PANELS = {
    "NFE": {name: [Point(2.0, 9.0 - i, 0.5), Point(4.0, 5.0 - i, 0.5)] for i, name in enumerate(NAMES)},
    "seconds per image": {name: [Point(0.1, 9.0, 0.0), Point(0.2, 5.0, 0.0)] for name in NAMES[1:]},
}


def styles(lines: Iterable[Line2D]) -> dict[object, tuple[object, ...]]:
    return {line.get_label(): (line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}


def test_a_curve_looks_the_same_in_every_panel_and_on_the_page() -> None:
    with drawn_in(LIGHT):
        left, right = costs.side_by_side(PANELS, "FD").axes
        alone = costs.one(PANELS, "seconds per image", "FD").axes[0]
    known = styles(left.lines)
    assert styles(right.lines) == styles(alone.lines) == {name: known[name] for name in NAMES[1:]}


def test_curves_of_one_color_have_different_markers() -> None:
    with drawn_in(LIGHT):
        lines = costs.side_by_side(PANELS, "FD").axes[0].lines
    assert len({(color, marker) for color, _, marker in styles(lines).values()}) == len(NAMES)


def test_the_axis_names_its_cost_and_the_band_is_the_spread_in_the_color_of_its_curve() -> None:
    plain = {"without a spread": [Point(2.0, 9.0, 0.0), Point(4.0, 5.0, 0.0)]}
    with drawn_in(LIGHT):
        axes, other = costs.side_by_side({**PANELS, "NFE": plain | PANELS["NFE"]}, "FD").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("NFE, log scale", "FD")
    assert other.get_xlabel() == "seconds per image, log scale"
    assert not other.collections, "without spreads there are no bands"
    for i, (line, band) in enumerate(zip(axes.lines[1:], axes.collections, strict=True)):
        assert to_hex(np.asarray(band.get_facecolor())[0]) == to_hex(str(line.get_color()))
        corners = {tuple(corner) for corner in np.asarray(band.get_paths()[0].vertices).tolist()}
        assert corners == {(2, 8.5 - i), (2, 9.5 - i), (4, 4.5 - i), (4, 5.5 - i)}
