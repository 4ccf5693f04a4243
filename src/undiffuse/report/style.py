"""How figures look: wide enough for a telephone, in the page's colors by day and by night.

Figures take their colors from matplotlib's settings, so that a notebook's own style holds there. Colors are Okabe and
Ito's, which the color-blind can tell apart, and lines differ in dashes too.
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

Draw = Callable[[], Figure]

WIDTH = 4.0
"""Inches: at the 350 pixels that a telephone shows, 8 points are as high as small print."""

TITLE_SIZE = 10
"""Points."""

SOFT = "axes.labelcolor"
"""The setting of matplotlib that holds the color of what stands back."""

LONGEST_NAME = 22
"""Characters of a class's or file's name inside a figure; tables have them whole."""

FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Hiragino Sans", "PingFang SC", "Yu Gothic"),
    *("Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Devanagari"),
)
"""What writing beyond Latin, Greek and Cyrillic is drawn with, where one of them is installed."""

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


@contextmanager
def drawn_in(style: dict[str, Any]) -> Generator[None, None, None]:
    """Figures made and saved inside have the style. A letter that no font has becomes a box, without a warning."""
    there = [name for name in FONTS if name in _installed()]
    with rc_context({**style, "font.family": ["DejaVu Sans", *there]}), warnings.catch_warnings():  # ty: ignore
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def png(draw: Draw, style: dict[str, Any]) -> bytes:
    """What `draw` draws, in the style."""
    content = io.BytesIO()
    with drawn_in(style):  # Some colors are only looked up when the figure is saved.
        draw().savefig(content, format="png")
    return content.getvalue()


def new_figure(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the common width with axes below one another; `height` in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def new_axes(height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of the common width with axes and a title in it; `height` in inches."""
    figure, (axes,) = new_figure(height)
    figure.suptitle(title, x=0, ha="left", weight="bold", fontsize=TITLE_SIZE)
    return figure, axes


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """The name cut to fit into a figure."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _installed() -> frozenset[str]:
    return frozenset(font.name for font in font_manager.fontManager.ttflist)
