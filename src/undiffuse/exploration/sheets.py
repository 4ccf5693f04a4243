"""Sheets of images with words under them, drawn on one canvas that is measured in inches."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from undiffuse.exploration.before_after import Beside
from undiffuse.exploration.framing import crop_box, kept_share
from undiffuse.exploration.named_duplicates import ShownPair
from undiffuse.exploration.noising import Curve, level, noisy
from undiffuse.exploration.samples import Samples
from undiffuse.report.style import TITLE_SIZE, WIDTH, short
from undiffuse.utils.names import Fit
from undiffuse.utils.text import size_text

TITLE, LINE, GAP = 0.34, 0.17, 0.07
"""Inches: the title's height, a caption line's, and the space between images."""

COLUMNS = 4
"""Images in a row."""

TILE = (WIDTH - (COLUMNS - 1) * GAP) / COLUMNS

NOISY_SHARES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""t / T of the noisy images that are shown, after the image itself."""

Pixels = UInt8[np.ndarray, "_ _ _"]
"""Height, width and channels; a sheet may hold images of several sizes."""
Box = tuple[float, float, float, float]
"""Left, top, width and height, in inches from the canvas's upper left corner."""


def before_augmentation(drawn: Samples) -> Figure:
    """The images of the sample as they are, with their classes."""
    return _sheet(f"{len(drawn.names)} images as they are", list(drawn.before), drawn.names)


def after_augmentation(drawn: Samples) -> Figure:
    """The same images in the same places, augmented."""
    return _sheet("The same, augmented", list(drawn.after), drawn.names)


def mean_image(mean: Float[np.ndarray, "h w c"]) -> Figure:
    """The mean over all images: what of them agrees."""
    side = 2.4
    figure, axes = _canvas(TITLE + side, "The mean of all images")
    _show(axes, mean.round().astype(np.uint8), (0, TITLE, WIDTH, side))
    return figure


def pairs(shown: Sequence[ShownPair], title: str) -> Figure:
    """Pairs of images side by side."""
    images = [image for pair in shown for image in pair.images]
    return _sheet(title, images, [pair.caption for pair in shown], together=2, lines=2)


def noise(image: Pixels, schedules: Sequence[Curve], seed: int = 0) -> Figure:
    """An image's noisy versions along the chain, two schedules side by side at the same t, with the same noise."""
    left, right = schedules
    levels = [max(1, round(share * len(left.sigma))) for share in NOISY_SHARES]
    both = zip(noisy(image, left, levels, seed), noisy(image, right, levels, seed), strict=True)
    captions = [
        f"t/T = {share:g}: {level(left, t).signal:.0%} and {level(right, t).signal:.0%} left"
        for share, t in zip(NOISY_SHARES, levels, strict=True)
    ]
    return _sheet(
        f"Noise, {left.name} left and {right.name} right",
        [image, image, *(shown for pair in both for shown in pair)],
        ["t/T = 0: the image itself", *captions],
        together=2,
    )


def framed(images: Sequence[Beside], size: tuple[int, int], fit: Fit) -> Figure:
    """Original images, what is cut off them dimmed, each beside what training reads."""
    cut = fit == "crop"
    captions = [
        f"{p.height}x{p.width}" + (f": {kept_share(p.height, p.width, size):.0%} kept" if cut else "") for p in images
    ]
    shown = [image for p in images for image in (p.original, p.result)]
    figure = _sheet(f"What {fit} to {size_text(size)} makes of them", shown, captions, together=2)
    if cut:
        for i, p in enumerate(images):
            _dim_outside(figure.axes[0], _place(2 * i, 1), p.original, crop_box(*p.original.shape[:2], size))
    return figure


def _sheet(title: str, images: Sequence[Pixels], captions: Sequence[str], together: int = 1, lines: int = 1) -> Figure:
    """Four images in a row; each `together` of them have one caption, of at most `lines` lines."""
    rows = -(-len(images) // COLUMNS)
    figure, axes = _canvas(TITLE + rows * (TILE + lines * LINE + GAP), title)
    for i, image in enumerate(images):
        _show(axes, image, _place(i, lines))
    for i, caption in enumerate(captions):
        left, top, width, height = _place(i * together, lines)
        middle = left + (together * (width + GAP) - GAP) / 2
        words = "\n".join(short(line, 16 * together) for line in caption.split("\n"))
        text = axes.text(middle, top + height + 0.03, words, fontsize=7.5, ha="center", va="top", parse_math=False)
        text.set(color=rcParams["axes.labelcolor"], linespacing=1.15)
    return figure


def _place(i: int, lines: int) -> Box:
    row, column = divmod(i, COLUMNS)
    return column * (TILE + GAP), TITLE + row * (TILE + lines * LINE + GAP), TILE, TILE


def _canvas(height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(0, 0.02, title, va="top", weight="bold", fontsize=TITLE_SIZE, parse_math=False)
    return figure, axes


def _show(axes: Axes, image: Pixels, box: Box) -> None:
    left, top, width, height = _inside(box, image)
    gray = image.shape[2] == 1
    axes.imshow(
        image[:, :, 0] if gray else image,
        extent=(left, left + width, top + height, top),
        cmap="gray" if gray else None,
        vmin=0,
        vmax=255,
        aspect="auto",
        interpolation="nearest",
    )


def _inside(box: Box, image: Pixels) -> Box:
    """The largest part of the box that has the image's proportions, in its middle."""
    left, top, width, height = box
    scale = min(width / image.shape[1], height / image.shape[0])
    inner_width, inner_height = image.shape[1] * scale, image.shape[0] * scale
    return left + (width - inner_width) / 2, top + (height - inner_height) / 2, inner_width, inner_height


def _dim_outside(axes: Axes, box: Box, image: Pixels, kept: tuple[float, float, float, float]) -> None:
    left, top, width, height = _inside(box, image)
    across, down = width / image.shape[1], height / image.shape[0]
    x0, y0, x1, y1 = left + kept[0] * across, top + kept[1] * down, left + kept[2] * across, top + kept[3] * down
    for corner, size in (
        ((left, top), (width, y0 - top)),
        ((left, y1), (width, top + height - y1)),
        ((left, y0), (x0 - left, y1 - y0)),
        ((x1, y0), (left + width - x1, y1 - y0)),
    ):
        axes.add_patch(Rectangle(corner, *size, facecolor="black", alpha=0.6, linewidth=0))
    # White on black: seen on any image.
    for color, line in (("black", 2.4), ("white", 1.0)):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=line))
