"""How far a training run is: its budget, what is left, its curve and its newest preview."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from undiffuse.runs.finding import finding
from undiffuse.runs.run import Run
from undiffuse.studio import markup
from undiffuse.studio.curve import loss_curve
from undiffuse.utils.text import duration, number, size_text

RECENT_SECONDS = 90
"""A log that was written to within this time, or four times that between its last lines, is of a run in training."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands, from its log and its budget."""

    images: int
    """Seen so far."""
    fraction: float
    """Of the budget."""
    seconds: float
    """Of training so far."""
    budget: str
    loss: float | None
    held_out_loss: float | None
    is_training: bool

    @property
    def seconds_left(self) -> float | None:
        """None before the first line of the log, and at the end."""
        if not 0 < self.fraction < 1:
            return None
        return self.seconds * (1 - self.fraction) / self.fraction


def standing(run: Run, lines: list[dict[str, Any]]) -> Standing:
    """Where the run stands, from the lines of its log."""
    training, last = run.config.training, lines[-1] if lines else {}
    checkpoint = next(iter(run.checkpoints()), None)
    images = max(int(last.get("images", 0)), checkpoint.images if checkpoint else 0)
    seconds = float(last.get("seconds", 0.0))
    if training.total_images:
        fraction, budget = images / training.total_images, f"{training.total_images:,} images"
    else:
        minutes = training.total_minutes or 0.0
        fraction, budget = seconds / 60 / minutes if minutes else 0.0, f"{minutes:g} minutes"
    between = seconds - float(lines[-2].get("seconds", 0.0)) if len(lines) > 1 else 0.0
    silent = time.time() - run.log_file.stat().st_mtime if run.log_file.exists() else math.inf
    recent = silent < max(RECENT_SECONDS, 4 * between)
    held_out = next((line["held_out_loss"] for line in reversed(lines) if line.get("held_out_loss")), None)
    return Standing(images, min(fraction, 1.0), seconds, budget, last.get("loss"), held_out, recent and fraction < 1)


def card(run: Run, is_training: bool | None = None, preview: bool = True) -> str:
    """One run: its budget, what is left, the losses, the curve, and the newest preview.

    Args:
        is_training: Whether it trains now, where that is known; None looks at its log.
    """
    lines = run.log_lines()
    now = standing(run, lines)
    training = now.is_training if is_training is None else is_training
    size, config = size_text(run.config.network.size), run.config
    classes = f", {len(config.class_names)} classes" if config.class_names else ""
    left = f", about {duration(now.seconds_left)} left" if training and now.seconds_left is not None else ""
    state = "training" if training else "done" if now.fraction >= 1 or not lines else "stopped"
    about = markup.facts(
        [
            ("Images seen", f"{now.images:,}"),
            ("Loss", f"{now.loss:.4f}" if now.loss is not None else "not yet"),
            ("Held-out loss", f"{now.held_out_loss:.4f}" if now.held_out_loss is not None else "none"),
            ("Speed", f"{number(now.images / now.seconds)} images/s" if now.seconds else "unknown"),
        ]
    )
    bar = markup.meter(now.fraction, f"{now.fraction:.0%} of {now.budget}{left}") if lines else ""
    told = markup.note(finding(lines[-1])) if lines and finding(lines[-1]) else ""
    body = bar + about + loss_curve(lines, config.training.total_images) + told
    newest = newest_preview(run.folder) if preview else None
    side = preview_markup(newest) if newest is not None else ""
    head = (
        f'<header><h3>{markup.escape(run.name)}</h3><span class="state {state}">{state}</span>'
        f"<p>{markup.escape(config.preset)}, {size}{classes}, seed {config.seed}</p></header>"
    )
    return f'<article class="run">{head}<div class="run-body"><div>{body}</div>{side}</div></article>'


def newest_preview(folder: Path) -> Path | None:
    """The newest preview from the EMA of the weights."""
    found = sorted((folder / "previews").glob("*-ema.png"))
    return found[-1] if found else None


def preview_markup(path: Path) -> str:
    images = int(path.name.partition("-")[0])
    with Image.open(path) as image:
        url = markup.png_url(image)
    text = f"Preview after {images:,} images"
    return (
        f'<figure class="preview"><img class="pixels" src="{url}" alt="{text}"><figcaption>{text}</figcaption></figure>'
    )
