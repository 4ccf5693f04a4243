"""A sheet of what an edit started from and what it made, drawn on one canvas that is measured in inches."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, UInt8
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from undiffuse.data.pixels import to_nhwc
from undiffuse.report.style import SOFT, TITLE_SIZE, NotebookFigure, shortened

TILE, GAP, CAPTION = 1.2, 0.1, 0.2
"""Inches: the side of an image, the space between two, and the height of a caption."""

MARGIN, HEADING, LINE, SECTION = 0.2, 0.5, 0.16, 0.26
"""Inches: around everything, for the title, for a line below it, and for the name of a section."""

BETWEEN = 0.4
"""Inches between before and after."""

COLUMNS = 6
"""Results in a row, at most."""

ANEW = "#d55e00"
"""The color laid over pixels that are to be made anew."""


class Panel(NamedTuple):
    """One image on a sheet."""

    pixels: UInt8[Tensor, "c h w"]
    caption: str


def highlighted(pixels: UInt8[Tensor, "c h w"], mask: Bool[Tensor, "h w"]) -> UInt8[Tensor, "3 h w"]:
    """The image in color, with a color laid over the pixels where `mask` is True."""
    color = 255 * torch.tensor(to_rgb(ANEW))[:, None, None]
    seen = pixels[:3].expand(3, -1, -1).float()
    return torch.where(mask, 0.25 * seen + 0.75 * color, seen).round().to(torch.uint8)


def before_after(title: str, about: Sequence[str], before: Sequence[Panel], after: Sequence[Panel]) -> Figure:
    """Before on the left, one below the other, and after on the right, row by row; `about` is lines for the heading."""
    columns = min(COLUMNS, len(after))
    rows = max(-(-len(after) // columns), len(before))
    left = MARGIN + (TILE + BETWEEN if before else 0)
    width = max(left + columns * (TILE + GAP) - GAP + MARGIN, 4.2)
    heading = HEADING + LINE * len(about)
    height = heading + SECTION + rows * (TILE + CAPTION + GAP) + MARGIN
    figure = NotebookFigure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(MARGIN, 0.14, title, va="top", weight="bold", fontsize=TITLE_SIZE + 1, parse_math=False)
    for i, line in enumerate(about):
        axes.text(MARGIN, 0.38 + i * LINE, line, va="top", fontsize=8, color=rcParams[SOFT], parse_math=False)
    top = heading + SECTION
    for name, start, panels in (("before", MARGIN, before), ("after", left, after)):
        if panels:
            axes.text(start, top - 0.07, name, fontsize=8.5, weight="bold", color=rcParams[SOFT], va="bottom")
    for i, panel in enumerate(before):
        _place(axes, panel, MARGIN, top + i * (TILE + CAPTION + GAP))
    for i, panel in enumerate(after):
        row, column = divmod(i, columns)
        _place(axes, panel, left + column * (TILE + GAP), top + row * (TILE + CAPTION + GAP))
    if before:
        middle, end = left - BETWEEN / 2, height - MARGIN
        axes.plot([middle, middle], [heading + 0.08, end], color=rcParams["grid.color"], linewidth=1)
    return figure


def _place(axes: Axes, panel: Panel, left: float, top: float) -> None:
    """The image in the middle of its square, and its caption below."""
    image = to_nhwc(panel.pixels[None])[0]
    scale = TILE / max(image.shape[:2])
    height, width = image.shape[0] * scale, image.shape[1] * scale
    x, y, gray = left + (TILE - width) / 2, top + (TILE - height) / 2, image.shape[2] == 1
    axes.imshow(
        image[:, :, 0] if gray else image,
        extent=(x, x + width, y + height, y),
        cmap="gray" if gray else None,
        vmin=0,
        vmax=255,
        aspect="auto",
        interpolation="nearest",
    )
    text = axes.text(left + TILE / 2, top + TILE + 0.04, shortened(panel.caption, 24), fontsize=7, ha="center")
    text.set(va="top", color=rcParams[SOFT], parse_math=False)
