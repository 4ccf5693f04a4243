"""What the benchmarks of small sets measure alike: losses along the way, distances, nearest photos, and a figure."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import undiffuse
from undiffuse.data.batches import split_held_out
from undiffuse.data.store import open_store
from undiffuse.runs.run import Run
from undiffuse.training.held_out import HeldOut
from undiffuse.training.observers import Event
from undiffuse.training.state import TrainingState
from undiffuse.utils.errors import Skipped

FEATURES = "efficientnet-lite0"
CAPTION = 24
"""Height in pixels."""


class Losses(undiffuse.Observer):
    """The EMA's mean loss on held-out photos and on as many that are trained on, and the CPU seconds of training."""

    key = "Losses"

    def __init__(self, held_out_images: int, measured_at: Sequence[float]):
        """`measured_at` are fractions of the budget, rising; before the first step it is measured too."""
        self.held_out_images, self.due = held_out_images, list(measured_at)
        self.found: dict[str, Any] = {}
        self.cpu_seconds = 0.0

    def begin(self, run: Run, state: TrainingState) -> None:
        self.store = open_store(run.config.data)
        self.measure = HeldOut(self.store, 0)
        self.measure.begin(run, state)
        self.training, _ = split_held_out(len(self.store), run.config.training.held_out_images)
        if not state.images:
            self._take(0, state.whole("ema"))
        self.since = time.process_time()

    def resume(self, saved: dict[str, Any]) -> None:
        self.found, self.due, self.cpu_seconds = saved["found"], saved["due"], saved.get("cpu_seconds", 0.0)

    def checkpoint_state(self) -> dict[str, Any]:
        return {"found": self.found, "due": self.due, "cpu_seconds": self._spent()}

    def step(self, event: Event) -> None:
        if self.due and event.progress >= self.due[0]:
            self.due, self.cpu_seconds = self.due[1:], self._spent()
            self._take(event.images, event.ema)
            self.since = time.process_time()

    def _spent(self) -> float:
        return self.cpu_seconds + time.process_time() - self.since

    def _take(self, images: int, ema: Any) -> None:
        _, held_out = split_held_out(len(self.store), self.held_out_images)
        parts = {"held out": held_out, "trained on": self.training[: len(held_out)]}
        losses = {name: float(self.measure.losses(ema, each).mean()) for name, each in parts.items()}
        self.found[str(images)] = losses | {"cpu_seconds": round(self.cpu_seconds)}


def losses_of(run: Run) -> dict[str, Any]:
    """What `Losses` found in the run, by images seen."""
    checkpoint = run.last_good()
    assert checkpoint is not None
    return checkpoint.state[Losses.key]["found"]


def metrics(reference: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    """Distances between features, precision and recall of samples against a reference."""
    found = undiffuse.measure(reference, samples, features=FEATURES)
    return {name: float(found[name].value) for name in ("FD-EffNet", "KD-EffNet", "precision", "recall")}


def nearest(photos: np.ndarray, images: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each image the distance to the nearest photo and its index, in features and in pixels."""
    found = undiffuse.measure(photos, images, features=FEATURES).memorization
    assert not isinstance(found, Skipped)
    return {each.features: (each.found.samples.numpy(), each.found.nearest.index.numpy()) for each in found}


def stacked(sheets: dict[str, Image.Image]) -> Image.Image:
    """The sheets one below another, each under its name."""
    width, height = max(sheet.width for sheet in sheets.values()), sum(s.height + CAPTION for s in sheets.values())
    figure = Image.new("RGB", (width, height), "white")
    top = 0
    for name, sheet in sheets.items():
        ImageDraw.Draw(figure).text((4, top + 4), name, fill="black", font_size=15)
        figure.paste(sheet, (0, top + CAPTION))
        top += sheet.height + CAPTION
    return figure
