"""Images to look at: arrays that show themselves, grids, film strips and animations."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from undiffuse.data.pixels import to_nchw, to_nhwc, to_pixels
from undiffuse.diffusion.samplers import Step
from undiffuse.utils.files import atomic_path

FILM_FRAMES = 40

FILM_IMAGES = 16
"""Images in an animation."""

GRID_SIDE = 640
"""Grids of small images are enlarged, pixel by pixel, to about this many pixels."""


class Images(np.ndarray):
    """uint8 images of shape (n, height, width, channels), 0 to 255: a NumPy array that a notebook shows as a grid.

    Channels are 1 (gray), 3 (RGB) or 4 (RGBA). `images[2]` is one image, `images[:4]` the first four; arithmetic
    gives plain arrays.

    Example:
        images = model.sample(8)
        images.save_grid("grid.png")
        torch.from_numpy(images), images.to_torch()  # (n, height, width, channels), (n, channels, height, width)
    """

    def __new__(cls, pixels: Any) -> "Images":
        """Takes an array (n, height, width, channels) or a tensor (n, channels, height, width), both uint8.

        Raises:
            ValueError: another shape or type.
        """
        array = to_nhwc(pixels) if isinstance(pixels, Tensor) and pixels.ndim == 4 else np.asarray(pixels)
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3, 4):
            raise ValueError(
                f"{array.dtype} of shape {tuple(array.shape)} is not images: give uint8 of shape (n, height, width, "
                "channels) with 1, 3 or 4 channels."
            )
        return np.ascontiguousarray(array).view(cls)

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def to_torch(self) -> UInt8[Tensor, "n c h w"]:
        """The images as torch has them, uint8; shares their memory."""
        return to_nchw(np.asarray(self))

    def grid(self, columns: int | None = None) -> Image.Image:
        """The images row by row on one sheet, nearly square unless `columns` are given."""
        return grid(self.to_torch(), columns)

    def save_grid(self, path: str | Path, columns: int | None = None) -> Path:
        """Saves the grid as a PNG."""
        path = Path(path).expanduser()
        save_png(self.grid(columns), path)
        return path

    def save(self, folder: str | Path) -> list[Path]:
        """Saves one PNG per image, numbered from 0."""
        paths = [Path(folder).expanduser() / f"{i:06d}.png" for i in range(len(self))]
        for pixels, path in zip(self.to_torch(), paths, strict=True):
            save_png(to_pil(pixels), path)
        return paths

    def _repr_png_(self) -> bytes | None:
        shown = self[None] if self.ndim == 3 else self
        if shown.dtype != np.uint8 or shown.ndim != 4 or shown.shape[3] not in (1, 3, 4) or 0 in shown.shape:
            return None  # The result of some slicing: shown as numbers.
        content = io.BytesIO()
        Images(shown).grid().save(content, "PNG")
        return content.getvalue()


def to_pil(pixels: UInt8[Tensor, "c h w"]) -> Image.Image:
    """One image as Pillow has it, in mode L, RGB or RGBA."""
    array = to_nhwc(pixels[None])[0]
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else np.ascontiguousarray(array))


def grid(pixels: UInt8[Tensor, "b c h w"], columns: int | None = None, gap: int = 1) -> Image.Image:
    """The images row by row on white, `columns` in a row, nearly square unless given."""
    return _rows(pixels, columns, gap, around=255)


def grid_for_page(pixels: UInt8[Tensor, "b c h w"], columns: int | None = None, gap: int = 1) -> Image.Image:
    """The same with nothing between the images, so that the page shows through, light or dark."""
    color, alpha = pixels[:, :3].float(), pixels[:, 3:4].float() / 255 if pixels.shape[1] == 4 else 1.0
    on_white = (color * alpha + 255 * (1 - alpha)).round().to(torch.uint8).expand(-1, 3, -1, -1)
    return _rows(torch.cat([on_white, torch.full_like(on_white[:, :1], 255)], dim=1), columns, gap, around=0)


def _rows(pixels: UInt8[Tensor, "b c h w"], columns: int | None, gap: int, around: int) -> Image.Image:
    count, channels, height, width = pixels.shape
    if count == 1:
        return enlarged(to_pil(pixels[0]))
    columns = min(count, columns or max(1, round((count * height / width) ** 0.5)))
    rows = math.ceil(count / columns)
    cells = pixels.new_full((rows * columns, channels, height + gap, width + gap), around)
    cells[:count, :, gap:, gap:] = pixels
    together = cells.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return enlarged(to_pil(pad(together, (0, gap, 0, gap), value=around)))


def enlarged(image: Image.Image, side: int = GRID_SIDE) -> Image.Image:
    """The image with each pixel repeated, about `side` pixels long; a large one as it is."""
    factor = max(1, round(side / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


class Frame(NamedTuple):
    """One moment of sampling, as pixels."""

    noisy: UInt8[Tensor, "b c h w"]
    """The sampler's x, scaled to the range that DDPM's x_t has."""
    clean: UInt8[Tensor, "b c h w"]
    """The denoiser's x0."""


def frames(steps: Iterator[Step], total_steps: int) -> list[Frame]:
    """Takes all steps of a sampler and keeps the few that a film shows, always with the last."""
    shown = set(_evenly(total_steps, FILM_FRAMES))
    return [
        Frame(to_pixels(step.x / torch.sqrt(1 + step.sigma**2)), to_pixels(step.x0))
        for i, step in enumerate(steps)
        if i in shown
    ]


def film_strip(film: Sequence[Frame], images: int = 4, columns: int = 10) -> Image.Image:
    """A few images from noise (left) to finished (right): the noisy image above, the denoiser's x0 below."""
    shown = [film[i] for i in _evenly(len(film), columns)]
    rows = []
    for i in range(min(images, len(film[0].noisy))):
        rows += [frame.noisy[i] for frame in shown] + [frame.clean[i] for frame in shown]
    return grid(torch.stack(rows), columns=len(shown))


def save_animation(film: Sequence[Frame], path: Path, images: int = FILM_IMAGES) -> None:
    """A GIF of the images coming out of the noise; the last frame stays for two seconds."""
    sheets = [grid(frame.noisy[:images]).convert("RGB") for frame in film]
    with atomic_path(path, durable=False) as temporary:
        durations = [80] * (len(sheets) - 1) + [2000]
        sheets[0].save(temporary, "GIF", save_all=True, append_images=sheets[1:], duration=durations, loop=0)


def save_png(image: Image.Image, path: Path) -> None:
    """Writes the PNG whole or not at all."""
    with atomic_path(path, durable=False) as temporary:
        image.save(temporary, "PNG")


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of 0 to count - 1, evenly spread, always with the last."""
    return sorted({round(i) for i in np.linspace(count - 1, 0, min(count, wanted))})
