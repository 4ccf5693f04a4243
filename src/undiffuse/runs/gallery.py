"""A folder of samples: one PNG a seed, what made them beside it, and only the missing ones are made."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.report import grids
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.sampling.model import Model, labels_for, last, nfe, sample, watched
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.files import write_atomically
from undiffuse.utils.terminal import Meter, log
from undiffuse.utils.text import duration

GRID_IMAGES = 100

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last bytes of a whole PNG."""


@dataclass(frozen=True)
class Gallery:
    """Samples of one model, made in one way."""

    folder: Path
    model: Model
    how: SamplingConfig
    label: int | None
    """The label of all, -1 for none; None for every class in turn, by seed."""

    def path(self, seed: int) -> Path:
        return self.folder / f"{seed:06d}.png"

    def has(self, seed: int) -> bool:
        """Whether this sample is there whole; a crash or a full disk leaves empty and cut files, to be made again.

        Only its last bytes are read: decoding 50,000 at every command would take far longer.
        """
        try:
            with open(self.path(seed), "rb") as file:
                file.seek(-len(PNG_END), os.SEEK_END)
                return file.read() == PNG_END
        except OSError:  # It is missing, or shorter than that.
            return False

    def pixels(self, seeds: Sequence[int]) -> UInt8[Tensor, "b c h w"]:
        """The samples of these seeds, from their files."""
        channels, height, width = self.model.shape
        return torch.stack(
            [
                torch.from_numpy(np.array(Image.open(self.path(seed))))
                .reshape(height, width, channels)
                .permute(2, 0, 1)
                for seed in seeds
            ]
        )


def maker(run: Run, checkpoint: Checkpoint, weights: str) -> dict[str, Any]:
    """What says for samples.json which model it was: another one of the same name has another digest."""
    return {
        "run": run.name,
        "preset": run.config.preset,
        "images": checkpoint.images,
        "weights": weights,
        "weights_sha256": checkpoint.digest(weights),
    }


def open_gallery(
    folder: Path, model: Model, how: SamplingConfig, label: int | None, made_by: dict[str, Any]
) -> Gallery:
    """The gallery in `folder`, whose samples.json says what made it: `made_by` (see `maker`), `how` and `label`.

    Raises:
        ValueError: the folder holds samples that were made in another way.
    """
    protocol = {**made_by, **asdict(how), "label": label}
    file = folder / "samples.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = [f"{name} {before.get(name)}" for name in protocol if before.get(name) != protocol[name]]
        if changed:
            raise ValueError(f"{folder.absolute()} holds samples made with {changed[0]}: choose another --out.")
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder.absolute()} holds other files: choose another --out.")
    else:
        write_atomically(file, json.dumps(protocol, indent=2) + "\n")
    return Gallery(folder, model, how, label)


def fill(gallery: Gallery, seeds: Sequence[int], batch: int) -> None:
    """Makes the samples that are missing, `batch` at a time, after saying how long it will take."""
    missing = [seed for seed in seeds if not gallery.has(seed)]
    if len(missing) < len(seeds):
        log.info(f"{len(seeds) - len(missing):,} of {len(seeds):,} images are there already.")
    if not missing:
        return
    how = gallery.how
    calls = nfe(how, labeled=bool(gallery.model.class_names))
    seconds = _seconds_per_call(gallery, missing[:batch]) * calls * -(-len(missing) // batch)
    what = f"{len(missing):,} images, {how.steps} {how.sampler} steps"
    log.info(f"{what} ({calls} function evaluations each): about {duration(seconds)}.")
    with Meter("sampling", len(missing) * how.steps) as meter:
        for start in range(0, len(missing), batch):
            portion = missing[start : start + batch]

            def show(step: int, start: int = start, size: int = len(portion)) -> None:
                meter.reach(start * how.steps + step * size, f"{start:,}/{len(missing):,} images")

            try:
                done = last(watched(sample(gallery.model, portion, _labels(gallery, portion), how), show))
            except torch.OutOfMemoryError as error:
                raise WorkFailed(f"Out of memory: --batch {max(1, len(portion) // 2)} needs less.") from error
            for seed, pixels in zip(portion, to_pixels(done.x), strict=True):
                grids.save_png(grids.to_pil(pixels), gallery.path(seed))


def save_grid(gallery: Gallery, seeds: Sequence[int]) -> Path:
    """grid.png of the first hundred; a column a class where every class comes in turn."""
    path = gallery.folder / "grid.png"
    classes = len(gallery.model.class_names)
    columns = classes if gallery.label is None and 1 < classes <= 16 else None
    grids.save_png(grids.grid(gallery.pixels(seeds[:GRID_IMAGES]), columns), path)
    return path


def save_film(gallery: Gallery, seeds: Sequence[int], show: Callable[[int], object]) -> tuple[Path, Path]:
    """film.png and film.gif of the first sixteen; `show` is told the number of each step done."""
    portion = seeds[:16]
    steps = watched(sample(gallery.model, portion, _labels(gallery, portion), gallery.how), show)
    film = grids.frames(steps, gallery.how.steps)
    strip, animation = gallery.folder / "film.png", gallery.folder / "film.gif"
    grids.save_png(grids.film_strip(film), strip)
    grids.save_animation(film, animation)
    return strip, animation


def _labels(gallery: Gallery, seeds: Sequence[int]) -> list[int] | None:
    return labels_for(gallery.model, seeds, gallery.label)


def _seconds_per_call(gallery: Gallery, seeds: Sequence[int]) -> float:
    """How long the network takes for these, measured on the second call: the first warms up."""
    one_step = SamplingConfig(sampler="euler", steps=1)
    for _ in range(2):
        began = time.monotonic()
        last(sample(gallery.model, seeds, _labels(gallery, seeds), one_step)).x.cpu()  # Waits for the device.
    return time.monotonic() - began
