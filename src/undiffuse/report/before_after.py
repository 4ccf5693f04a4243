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

TILE, GAP, CAPTION = 1.1, 0.1, 0.22
"""Inches: the side of an image, the space between two, and the height of a caption."""

MARGIN, HEADING, LINE, NAME = 0.2, 0.24, 0.16, 0.32
"""Inches: around everything, for a title, for a line below it, and for the words before and after."""

BETWEEN = 0.4
"""Inches between before and after."""

LEAST_WIDTH = 5.2
"""Inches, so that a line below the title fits."""

COLUMNS = 6
"""Results in a row, at most."""

ANEW = "#d55e00"
"""The color laid over pixels that are to be made anew."""


class Panel(NamedTuple):
    """One image on a sheet."""

    pixels: UInt8[Tensor, "c h w"]
    caption: str


class Section(NamedTuple):
    """One edit on a sheet."""

    title: str
    about: Sequence[str]
    """Lines below the title."""
    before: Sequence[Panel]
    after: Sequence[Panel]

    @property
    def columns(self) -> int:
        """Results in a row: as many in each, as far as possible."""
        rows = -(-len(self.after) // COLUMNS)
        return -(-len(self.after) // rows)

    @property
    def height(self) -> float:
        rows = -(-len(self.after) // self.columns)
        return HEADING + LINE * len(self.about) + NAME + rows * (TILE + CAPTION + GAP)


def highlighted(pixels: UInt8[Tensor, "c h w"], mask: Bool[Tensor, "h w"]) -> UInt8[Tensor, "3 h w"]:
    """The image in color, with a color laid over the pixels where `mask` is True."""
    color = 255 * torch.tensor(to_rgb(ANEW))[:, None, None]
    seen = pixels[:3].expand(3, -1, -1).float()
    return torch.where(mask, 0.25 * seen + 0.75 * color, seen).round().to(torch.uint8)


def before_after(sections: Sequence[Section]) -> Figure:
    """Edits one below the other: what each started from on the left, what it made on the right, row by row."""
    before = max(len(section.before) for section in sections)
    left = MARGIN + (before * (TILE + GAP) - GAP + BETWEEN if before else 0)
    columns = max(section.columns for section in sections)
    width = max(left + columns * (TILE + GAP) - GAP + MARGIN, LEAST_WIDTH)
    height = MARGIN + sum(section.height for section in sections) + MARGIN * (len(sections) - 1)
    figure = NotebookFigure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    top = MARGIN
    for section in sections:
        _draw(axes, section, top, left)
        top += section.height + MARGIN
    return figure


def _draw(axes: Axes, section: Section, top: float, left: float) -> None:
    soft = rcParams[SOFT]
    axes.text(MARGIN, top, section.title, va="top", weight="bold", fontsize=TITLE_SIZE + 1, parse_math=False)
    for i, line in enumerate(section.about):
        axes.text(MARGIN, top + HEADING + i * LINE, line, va="top", fontsize=8, color=soft, parse_math=False)
    start, end = top + HEADING + LINE * len(section.about) + NAME, top + section.height - GAP
    for name, side, panels, columns in (
        ("before", MARGIN, section.before, max(1, len(section.before))),
        ("after", left, section.after, section.columns),
    ):
        if panels:
            axes.text(side, start - 0.07, name, fontsize=8.5, weight="bold", color=soft, va="bottom")
        for i, panel in enumerate(panels):
            row, column = divmod(i, columns)
            _place(axes, panel, side + column * (TILE + GAP), start + row * (TILE + CAPTION + GAP))
    if section.before:
        middle = left - BETWEEN / 2
        axes.plot([middle, middle], [start - NAME + 0.1, end], color=rcParams["grid.color"], linewidth=1)


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
