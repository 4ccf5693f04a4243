"""What each edit needs: how it is made from seeds, what it started from, and what can be measured in its results."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from jaxtyping import Bool, UInt8
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.denoiser import Prediction
from undiffuse.diffusion.inverse_problems import Separable, area_downsampling, gaussian_blur, grayscale
from undiffuse.diffusion.samplers import Step
from undiffuse.report.before_after import Panel, highlighted
from undiffuse.sampling import editing
from undiffuse.sampling.model import Model, last
from undiffuse.utils.conditions import Condition
from undiffuse.utils.text import number, size_text

MEASURED = {
    "nfe": "NFE per image",
    "known_bytes_that_differ": "known bytes that differ",
    "rms_change_levels": "RMS change, of 255 levels",
    "round_trip_rms_levels": "RMS error of the round trip, of 255 levels",
    "measurement_rms_levels": "RMS error when measured again, of 255 levels",
}
"""What is measured, as it is told."""


def written(value: Any) -> str:
    """An option or a measured value, as it is told; several of them for each image on a way."""
    if isinstance(value, list | tuple):
        return " and ".join(written(each) for each in value)
    return number(value) if isinstance(value, float) else str(value)


Pixels = UInt8[Tensor, "c h w"]
Results = UInt8[Tensor, "n c h w"]


@dataclass(frozen=True)
class Edit:
    """An edit, ready to be made."""

    steps: Callable[[Sequence[int]], Iterator[Step]]
    """The steps for these seeds; of an interpolation, for these places on its way."""
    before: list[Panel]
    """What it starts from, as the model sees it."""
    caption: Callable[[int], str] = "seed {}".format
    """What one result is called."""
    measure: Callable[[Results], dict[str, Any]] = lambda results: {}
    """What the finished results say about how well it worked."""
    options: dict[str, Any] = field(default_factory=dict)
    """Those of this edit alone, as they were used."""


def inpaint(
    model: Model,
    image: Pixels,
    mask: Bool[Tensor, "h w"],
    sampling: SamplingConfig,
    label: editing.Told,
    resamplings: int = editing.RESAMPLINGS,
) -> Edit:
    """Raises ValueError for a sampler that cannot go back and forth."""
    editing.check_can_inpaint(sampling)

    def measure(results: Results) -> dict[str, Any]:
        return {"known_bytes_that_differ": int((results != image)[:, :, ~mask].sum())}

    return Edit(
        lambda seeds: editing.inpaint_steps(
            model, signed(image), mask, seeds, sampling, label, resamplings=resamplings
        ),
        [Panel(image, "the image"), Panel(highlighted(image, mask), "to be regenerated")],
        measure=measure,
        options={"resamplings": resamplings},
    )


def vary(model: Model, image: Pixels, sampling: SamplingConfig, label: editing.Told, strength: float = 0.5) -> Edit:
    return Edit(
        lambda seeds: editing.vary_steps(model, signed(image), seeds, sampling, label, strength=strength),
        [Panel(image, "the image")],
        measure=lambda results: {"rms_change_levels": rms(results.double() - image)},
        options={"strength": strength},
    )


def interpolate_seeds(
    model: Model, seeds: tuple[int, int], count: int, sampling: SamplingConfig, label: editing.Told
) -> Edit:
    """Raises ValueError for a sampler that adds noise."""
    editing.check_can_interpolate(sampling)
    first, second = editing.seed_starts(model, seeds, sampling)
    return Edit(
        lambda places: editing.interpolate_steps(model, first, second, _fractions(places, count), sampling, label),
        [],
        caption=lambda place: _place(place, count, f"seed {seeds[0]}", f"seed {seeds[1]}"),
        options={"seeds": seeds, "count": count},
    )


def interpolate_images(
    model: Model, images: UInt8[Tensor, "2 c h w"], count: int, sampling: SamplingConfig, label: editing.Told
) -> Edit:
    """Raises ValueError for a sampler that adds noise, or a single step."""
    editing.check_can_invert(sampling)

    @cache
    def noises() -> Tensor:
        return last(editing.invert_steps(model, signed(images), sampling, label)).x

    def measure(results: Results) -> dict[str, Any]:
        # The ends are the images themselves, led to their noise and back.
        return {"round_trip_rms_levels": [rms(results[end].double() - images[end]) for end in (0, -1)]}

    return Edit(
        lambda places: editing.interpolate_steps(model, *noises(), _fractions(places, count), sampling, label),
        [Panel(images[0], "first image"), Panel(images[1], "second image")],
        caption=lambda place: _place(place, count, "first again", "second again"),
        measure=measure,
        options={"count": count},
    )


def colorize(model: Model, image: Pixels, sampling: SamplingConfig, label: editing.Told, noise: float = 1.0) -> Edit:
    """From an image (channels, height, width) of the model's, whose colors are not looked at."""
    operator = grayscale(model.shape)
    return _restored(model, operator, operator(signed(image)[None])[0], "made gray", sampling, label, noise)


def deblur(
    model: Model, image: Pixels, sampling: SamplingConfig, label: editing.Told, blur: float, noise: float = 1.0
) -> Edit:
    operator = gaussian_blur(model.shape, blur)
    edit = _restored(model, operator, signed(image), "the image", sampling, label, noise)
    return replace(edit, options=edit.options | {"blur": blur})


def enlarge(
    model: Model, image: UInt8[Tensor, "c k l"], sampling: SamplingConfig, label: editing.Told, noise: float = 1.0
) -> Edit:
    size = (image.shape[1], image.shape[2])
    operator = area_downsampling(model.shape, size)
    return _restored(model, operator, signed(image), f"the image, {size_text(size)}", sampling, label, noise)


def _restored(
    model: Model,
    operator: Separable,
    y: Tensor,
    caption: str,
    sampling: SamplingConfig,
    label: editing.Told,
    noise: float,
) -> Edit:
    def measure(results: Results) -> dict[str, Any]:
        return {"measurement_rms_levels": 127.5 * rms(operator(signed(results)) - y)}

    noise_std = noise * editing.NOISE_STD
    return Edit(
        lambda seeds: editing.restore_steps(model, operator, y, seeds, sampling, label, noise_std=noise_std),
        [Panel(to_pixels(y), caption)],
        measure=measure,
        options={"noise": noise},
    )


class Evaluations:
    """Counts the images that a model evaluates: a guided evaluation is two, as it is in the network."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, model: Model) -> Model:
        """The same model, counted, and what guides it."""

        def predict(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
            self.count += len(x)
            return model.predict(x, sigma, label)

        return replace(model, predict=predict, guide=model.guide and self.of(model.guide))


def signed(pixels: UInt8[Tensor, "*b c h w"]) -> Tensor:
    """Pixels as numbers in [-1, 1], float64."""
    return pixels.double() / 127.5 - 1


def rms(differences: Tensor) -> float:
    """The root of the mean square."""
    return math.sqrt(float(differences.square().mean()))


def _fractions(places: Sequence[int], count: int) -> list[float]:
    return [place / (count - 1) for place in places]


def _place(place: int, count: int, first: str, second: str) -> str:
    return {0: first, count - 1: second}.get(place, f"{place / (count - 1):.0%}")
