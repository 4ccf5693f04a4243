"""The loss of a training run as a small drawing that follows the page's colors."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from undiffuse.report.curves import count_text, smoothed

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 62, 8, 12, 30
"""Room for the numbers at the axes."""

POINTS = 300
"""A line with more is thinned out."""


def loss_curve(lines: Sequence[dict[str, Any]], total_images: int | None = None) -> str:
    """An SVG of the loss over the images seen, as logged and smoothed, and on held-out images; "" without a loss.

    Args:
        lines: Those of log.jsonl.
        total_images: Where the horizontal axis ends, if that is known.
    """
    finite = [line for line in lines if line.get("loss") is not None and line["loss"] > 0]
    if len(finite) < 2:
        return ""
    kept = [finite[round(i)] for i in np.linspace(0, len(finite) - 1, min(len(finite), POINTS))]
    images = np.array([line["images"] for line in kept], float)
    loss = np.array([line["loss"] for line in kept], float)
    held_out = [(line["images"], line["held_out_loss"]) for line in lines if line.get("held_out_loss")]
    values = [*loss, *(value for _, value in held_out)]
    low, high = math.log(min(values)), math.log(max(values))
    high = max(high, low + 0.05)
    end = max(total_images or 0, images[-1], 1.0)

    def at(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / end
        down = TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log(y)) / (high - low)
        return f"{across:.1f},{down:.1f}"

    def line(name: str, xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray) -> str:
        return f'<polyline class="{name}" points="{" ".join(map(at, xs, ys))}"/>'

    points = [at(x, y).split(",") for x, y in held_out]
    marks = "".join(f'<circle class="held-out" cx="{x}" cy="{y}" r="3.5"/>' for x, y in points)
    ticks = [math.exp(low + (high - low) * share) for share in (0.0, 0.5, 1.0)]
    across = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:.3g}</text>'
        for tick, y in ((tick, at(0, tick).split(",")[1]) for tick in ticks)
    )
    last = count_text(end) if end >= 1000 else f"{end:.0f}"
    ends = (
        f'<text x="{LEFT}" y="{HEIGHT - 8}">0</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{last} images seen</text>'
    )
    alt = f"Loss {loss[-1]:.4f} after {images[-1]:,.0f} images" + (
        f", {held_out[-1][1]:.4f} on held-out images" if held_out else ""
    )
    key = '<span class="key loss">loss</span>' + ('<span class="key held-out">held-out images</span>' if marks else "")
    return (
        f'<figure class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{alt}">{across}{ends}'
        f"{line('logged', images, loss)}{line('loss', images, smoothed(loss))}{marks}</svg>"
        f"<figcaption>{key}</figcaption></figure>"
    )
