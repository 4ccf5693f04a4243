"""The style of figures: sized for a phone, in the page's colors, light and dark.

Figures take their colors from matplotlib's settings, which `drawn_in` sets. The palette is Okabe and Ito's, which
people with color blindness can tell apart; lines differ in their dashes, too.
"""

import io
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from cycler import cycler
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Plot = Callable[[], Figure]
"""A function that draws a figure in matplotlib's current style."""

WIDTH = 4.0
"""Inches: at the 350 pixels of a phone, 8 points are as high as small print."""

TITLE_SIZE = 10
"""Points."""

SOFT = "axes.labelcolor"
"""The matplotlib setting that holds the color of secondary elements."""

LONGEST_NAME = 22
"""Characters of a class or file name inside a figure; tables have the whole name."""

NOTEBOOK_DPI = 110

FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Hiragino Sans", "PingFang SC", "Yu Gothic"),
    *("Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Devanagari"),
)
"""Fonts for scripts other than Latin, Greek and Cyrillic, if one of them is installed."""

_SHARED: dict[str, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "figure.dpi": 180,
    "savefig.dpi": 180,
}


def _inks(paper: str, ink: str, soft: str, line: str, colors: tuple[str, ...]) -> dict[str, Any]:
    return {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), paper),
        "text.color": ink,
        **dict.fromkeys((SOFT, "xtick.color", "ytick.color", "axes.edgecolor"), soft),
        "grid.color": line,
        "axes.prop_cycle": cycler(color=colors),
    }


LIGHT = _SHARED | _inks(
    "#ffffff", "#1c1e21", "#5f6670", "#e3e6ea", ("#0072b2", "#d55e00", "#009e73", "#a5588f", "#b8860b")
)
DARK = _SHARED | _inks(
    "#15171a", "#e6e8eb", "#9aa3ae", "#2c3137", ("#56b4e9", "#f08a3c", "#2fbf94", "#d58fc0", "#e5c453")
)


class NotebookFigure(Figure):
    """A figure that notebooks show by themselves, without pyplot."""

    def _repr_png_(self) -> bytes:
        return _saved(self, NOTEBOOK_DPI)


@contextmanager
def drawn_in(style: dict[str, Any]) -> Generator[None, None, None]:
    """Figures made and saved inside have the style. Letters that no font has become boxes, without a warning."""
    available = [name for name in FONTS if name in _installed()]
    with rc_context({**style, "font.family": ["DejaVu Sans", *available]}), warnings.catch_warnings():  # ty: ignore
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def png(plot: Plot, style: dict[str, Any]) -> bytes:
    """The plot in the style, as a PNG file."""
    with drawn_in(style):  # Some colors are only looked up when the figure is saved.
        return _saved(plot())


def _saved(figure: Figure, dpi: float | str = "figure") -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def new_figure(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the common width with axes stacked vertically; `height` is in inches."""
    figure = NotebookFigure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def new_axes(height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of the common width with one pair of axes and a title; `height` is in inches."""
    figure, (axes,) = new_figure(height)
    figure.suptitle(title, x=0, ha="left", weight="bold", fontsize=TITLE_SIZE)
    return figure, axes


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """The name, cut to fit into a figure."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _installed() -> frozenset[str]:
    return frozenset(font.name for font in font_manager.fontManager.ttflist)
