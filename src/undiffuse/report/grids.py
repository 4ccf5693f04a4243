"""Grids, film strips and animations of images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.samplers import Step
from undiffuse.utils.files import atomic_path

FILM_FRAMES = 40

GRID_SIDE = 640
"""Grids of small images are enlarged, pixel by pixel, to about this many pixels."""


def to_pil(pixels: UInt8[Tensor, "c h w"]) -> Image.Image:
    """One image as Pillow has it, in mode L, RGB or RGBA."""
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else np.ascontiguousarray(array))


def grid(pixels: UInt8[Tensor, "b c h w"], columns: int | None = None, gap: int = 1) -> Image.Image:
    """The images row by row, `columns` in a row, as near to a square as can be unless given."""
    from torchvision.utils import make_grid  # Imported when needed: it takes as long as torch itself.

    columns = columns or max(1, round((len(pixels) * pixels.shape[2] / pixels.shape[3]) ** 0.5))
    white = make_grid(pixels, nrow=columns, padding=gap, pad_value=255)
    return enlarged(to_pil(white[: pixels.shape[1]]))


def enlarged(image: Image.Image, side: int = GRID_SIDE) -> Image.Image:
    factor = max(1, round(side / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


class Frame(NamedTuple):
    """One moment of a denoising, as pixels."""

    noisy: UInt8[Tensor, "b c h w"]
    """What the sampler holds, brought to the range it would have in DDPM's x_t."""
    clean: UInt8[Tensor, "b c h w"]
    """The clean image that the denoiser expects."""


def frames(steps: Iterator[Step], total_steps: int) -> list[Frame]:
    """Takes all steps of a sampler and keeps the few of them that a film shows, the last always."""
    shown = set(_evenly(total_steps, FILM_FRAMES))
    return [
        Frame(to_pixels(step.x / torch.sqrt(1 + step.sigma**2)), to_pixels(step.x0))
        for i, step in enumerate(steps)
        if i in shown
    ]


def film_strip(film: Sequence[Frame], images: int = 4, columns: int = 10) -> Image.Image:
    """A few images from noise (left) to done: above what the sampler holds, below the clean image it expects."""
    shown = [film[i] for i in _evenly(len(film), columns)]
    rows = []
    for i in range(min(images, len(film[0].noisy))):
        rows += [frame.noisy[i] for frame in shown] + [frame.clean[i] for frame in shown]
    return grid(torch.stack(rows), columns=len(shown))


def save_animation(film: Sequence[Frame], path: Path, images: int = 16) -> None:
    """A GIF of the images coming out of the noise; the last frame stays for two seconds."""
    sheets = [grid(frame.noisy[:images]).convert("RGB") for frame in film]
    with atomic_path(path, durable=False) as temporary:
        durations = [80] * (len(sheets) - 1) + [2000]
        sheets[0].save(temporary, "GIF", save_all=True, append_images=sheets[1:], duration=durations, loop=0)


def save_png(image: Image.Image, path: Path) -> None:
    with atomic_path(path, durable=False) as temporary:
        image.save(temporary, "PNG")


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of 0 to count - 1, evenly spread, always with the last."""
    return sorted({round(i) for i in np.linspace(count - 1, 0, min(count, wanted))})
