"""A folder of samples: one PNG per seed, and samples.json, which records what made them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.columns import Value
from undiffuse.data.given_images import GivenImages
from undiffuse.data.pixels import to_nchw
from undiffuse.old_names import current
from undiffuse.report.grids import save_png, to_pil
from undiffuse.runs.run import OLD_PARTS, Checkpoint, Run
from undiffuse.utils.files import read_small, write_atomically

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last bytes of a whole PNG."""


@dataclass(frozen=True)
class Gallery:
    """Samples of one model, all made with the same options."""

    folder: Path
    shape: tuple[int, int, int]
    """(channels, height, width) of each."""
    class_names: tuple[str, ...]
    sampling: SamplingConfig
    labels: tuple[int, ...] | None
    """Taken in turn, by seed; -1 for none. None: every class in turn."""
    attributes: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """The values of each that is stated, likewise taken in turn."""
    like_training: bool = False
    """Instead of stated labels and attributes, each sample has those of a training image chosen at random."""
    given: GivenImages | None = None
    """Images that the model is told of, taken in turn by seed."""

    def path(self, seed: int) -> Path:
        return self.folder / f"{seed:06d}.png"

    def has(self, seed: int) -> bool:
        """Whether this sample is there whole; a crash or a full disk leaves empty and cut files, to be made again.

        Only its last bytes are read: decoding 50,000 files at every command would take far longer.
        """
        try:
            with open(self.path(seed), "rb") as file:
                file.seek(-len(PNG_END), os.SEEK_END)
                return file.read() == PNG_END
        except OSError:  # It is missing, or shorter than that.
            return False

    def pixels(self, seeds: Sequence[int]) -> UInt8[Tensor, "b c h w"]:
        """The samples of these seeds, from their files."""
        channels, height, width = self.shape
        return torch.cat(
            [to_nchw(np.array(Image.open(self.path(s))).reshape(1, height, width, channels)) for s in seeds]
        )

    def save(self, seed: int, pixels: UInt8[Tensor, "c h w"]) -> None:
        save_png(to_pil(pixels), self.path(seed))


def made_by(run: Run, checkpoint: Checkpoint, weights: str) -> dict[str, Any]:
    """Which model made the samples, for samples.json: another one of the same name has another digest."""
    return {
        "run": run.name,
        "preset": run.config.preset,
        "images": checkpoint.images,
        "weights": weights,
        "weights_sha256": checkpoint.digest(weights),
    }


def open_gallery(gallery: Gallery, model: dict[str, Any]) -> Gallery:
    """Makes the gallery's folder with its samples.json, or checks that what is there was made in the same way.

    `model` says which model makes the samples: see `made_by`.

    Raises:
        ValueError: the folder holds samples that were made in another way, or something else.
    """
    labels = gallery.labels[0] if gallery.labels and len(gallery.labels) == 1 else gallery.labels
    # As JSON has it: lists in place of tuples.
    more: dict[str, Any] = {"attributes": dict(gallery.attributes)} if gallery.attributes else {}
    more |= {"conditions": "those of training images"} if gallery.like_training else {}
    more |= {"given": gallery.given.names, "given_sha256": gallery.given.digest} if gallery.given else {}
    protocol = json.loads(json.dumps({**model, **asdict(gallery.sampling), "label": labels, **more}))
    folder, file = gallery.folder, gallery.folder / "samples.json"
    if file.exists():
        before = _read_protocol(file)
        names = {**protocol, **before}
        changed = [f"{name} {before.get(name)}" for name in names if before.get(name) != protocol.get(name)]
        if changed:
            raise ValueError(f"{folder.absolute()} holds samples made with {changed[0]}: choose another --out.")
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder.absolute()} holds other files: choose another --out.")
    else:
        write_atomically(file, json.dumps(protocol, indent=2) + "\n")
    return gallery


def _read_protocol(file: Path) -> dict[str, Any]:
    """What made the samples; galleries that older versions began go on, so old names are understood.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        protocol = json.loads(read_small(file))
        if not isinstance(protocol, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{file.absolute()} is damaged ({what}): choose another --out.") from error
    renamed = {"precision": "fp32"} | current(protocol, "sampling")  # Older versions had no other.
    weights = renamed.get("weights")
    return renamed | {"weights": next((new for new, old in OLD_PARTS.items() if old == weights), weights)}
