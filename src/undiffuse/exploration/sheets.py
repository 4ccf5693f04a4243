"""Sheets of images with captions, drawn on one canvas that is measured in inches."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from undiffuse.exploration.before_after import BeforeAfter
from undiffuse.exploration.framing import crop_box, kept_fraction
from undiffuse.exploration.named_duplicates import ExamplePair
from undiffuse.exploration.noising import Schedule, add_noise, noise_level
from undiffuse.exploration.samples import Samples
from undiffuse.report.style import TITLE_SIZE, WIDTH, NotebookFigure, shortened
from undiffuse.utils.names import Fit
from undiffuse.utils.text import size_text

TITLE, LINE, GAP = 0.34, 0.17, 0.07
"""Inches: the title's height, a caption line's, and the space between images."""

COLUMNS = 4
"""Images in a row."""

TILE = (WIDTH - (COLUMNS - 1) * GAP) / COLUMNS

TIMES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""t / T of the noisy images that follow the clean one."""

Pixels = UInt8[np.ndarray, "_ _ _"]
"""Height, width and channels; a sheet may hold images of several sizes."""

Box = tuple[float, float, float, float]
"""Left, top, width and height, in inches from the canvas's upper left corner."""


def before_augmentation(samples: Samples) -> Figure:
    """The sampled images as they are, with their classes."""
    return _sheet(f"{len(samples.names)} images as they are", list(samples.before), samples.names)


def after_augmentation(samples: Samples) -> Figure:
    """The same images in the same places, augmented."""
    return _sheet("The same images, augmented", list(samples.after), samples.names)


def mean_image(mean: Float[np.ndarray, "h w c"]) -> Figure:
    """The mean over all images: what they have in common."""
    side = 2.4
    figure, axes = _canvas(TITLE + side, "The mean of all images")
    _show(axes, mean.round().astype(np.uint8), (0, TITLE, WIDTH, side))
    return figure


def duplicates(pairs: Sequence[ExamplePair], title: str) -> Figure:
    """Pairs of images side by side."""
    images = [image for pair in pairs for image in pair.images]
    return _sheet(title, images, [pair.caption for pair in pairs], together=2, lines=2)


def noise(image: Pixels, schedules: Sequence[Schedule], seed: int = 0) -> Figure:
    """Noisy versions of an image under two schedules side by side, at the same t and with the same noise."""
    left, right = schedules
    timesteps = [max(1, round(time * len(left.sigma))) for time in TIMES]
    both = zip(add_noise(image, left, timesteps, seed), add_noise(image, right, timesteps, seed), strict=True)
    captions = [
        f"t/T = {time:g}: {noise_level(left, t).signal:.0%} and {noise_level(right, t).signal:.0%} remain"
        for time, t in zip(TIMES, timesteps, strict=True)
    ]
    return _sheet(
        f"Noise: {left.name} left, {right.name} right",
        [image, image, *(noisy for pair in both for noisy in pair)],
        ["t/T = 0: the image itself", *captions],
        together=2,
    )


def before_after(examples: Sequence[BeforeAfter], size: tuple[int, int], fit: Fit) -> Figure:
    """Originals, with what is cut off dimmed, each next to what training reads."""
    cut = fit == "crop"
    captions = [
        size_text((one.height, one.width)) + (f": {kept_fraction(one.height, one.width, size):.0%} kept" if cut else "")
        for one in examples
    ]
    images = [image for one in examples for image in (one.original, one.result)]
    verb = {"crop": "Cropped", "pad": "Padded", "stretch": "Stretched"}[fit]
    figure = _sheet(f"{verb} to {size_text(size)}", images, captions, together=2)
    if cut:
        for i, one in enumerate(examples):
            if kept_fraction(one.height, one.width, size) < 1:
                kept = crop_box(*one.original.shape[:2], size)
                _dim_outside(figure.axes[0], _place(2 * i, 1), one.original, kept)
    return figure


def _sheet(title: str, images: Sequence[Pixels], captions: Sequence[str], together: int = 1, lines: int = 1) -> Figure:
    """Rows of four images; every `together` of them share a caption of at most `lines` lines."""
    rows = -(-len(images) // COLUMNS)
    figure, axes = _canvas(TITLE + rows * (TILE + lines * LINE + GAP), title)
    for i, image in enumerate(images):
        _show(axes, image, _place(i, lines))
    for i, caption in enumerate(captions):
        left, top, width, height = _place(i * together, lines)
        middle = left + (together * (width + GAP) - GAP) / 2
        cut = "\n".join(shortened(line, 16 * together) for line in caption.split("\n"))
        text = axes.text(middle, top + height + 0.03, cut, fontsize=7.5, ha="center", va="top", parse_math=False)
        text.set(color=rcParams["axes.labelcolor"], linespacing=1.15)
    return figure


def _place(i: int, lines: int) -> Box:
    row, column = divmod(i, COLUMNS)
    return column * (TILE + GAP), TITLE + row * (TILE + lines * LINE + GAP), TILE, TILE


def _canvas(height: float, title: str) -> tuple[Figure, Axes]:
    figure = NotebookFigure(figsize=(WIDTH, height))
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
    """The largest box with the image's proportions in the middle of this one."""
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
    # White on black is visible on any image.
    for color, line in (("black", 2.4), ("white", 1.0)):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=line))
