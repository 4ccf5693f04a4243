"""Sampling for the page: what was asked for, and the steps that are shown of it, until a visitor stops it."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, NamedTuple

import PIL.Image
import torch
from jaxtyping import UInt8
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.samplers import Step
from undiffuse.report import grids
from undiffuse.sampling.labels import labels_for
from undiffuse.sampling.model import Model, sample_steps
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import sampling_config, with_acting_guidance
from undiffuse.studio.told import checked_image, stated
from undiffuse.utils.conditions import Condition, says_something
from undiffuse.utils.validation import STRICT

MOST_IMAGES = 64
MOST_STEPS = 1000

SHOW_SECONDS = 0.08
"""At least this long from one image on the page to the next, so that showing them does not slow sampling down."""

EVERY_CLASS, NO_CLASS = "", "none"
"""Labels that are no class: each class in turn, and none."""

View = Literal["x", "x0"]
"""The noisy image on its way, or the clean one that the denoiser expects behind it."""


@dataclass(frozen=True, config=STRICT)
class Request:
    """What a visitor asks for. Everything is checked here, whatever the page allowed."""

    run: Annotated[str, Field(max_length=300)]
    label: Annotated[str, Field(max_length=300)] = EVERY_CLASS
    guidance: Annotated[float, Field(ge=-10, le=20)] = 1.0
    sampler: Annotated[str, Field(max_length=60)] = SamplingConfig().sampler
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = SamplingConfig().steps
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    count: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 16
    view: View = field(default="x")
    interval: Annotated[str, Field(max_length=60)] = ""
    """Noise levels in which guidance acts, as in "0.28-1.6"; "" for all."""
    guide: Annotated[str, Field(max_length=300)] = ""
    """A run, or RUN@IMAGES; "" for the model itself."""
    attributes: Annotated[str, Field(max_length=3000)] = ""
    """Of a model that was trained with a table: see `told.stated`."""

    def __post_init__(self) -> None:
        if self.guidance == 1 and (self.guide or self.interval.strip()):
            what = "A guide" if self.guide else "A guidance interval"
            raise ValueError(f"{what} does nothing at guidance 1: choose another guidance, such as 2.")

    @property
    def model_label(self) -> str | None:
        return None if self.label == EVERY_CLASS else self.label

    def labels(self, model: Model) -> list[int] | None:
        """The class of each image by its index, -1 for none; None for a model without classes."""
        return labels_for(model.class_names, self.seeds, model.find_labels(self.model_label))

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.count)

    def nfe(self, model: Model, image: PIL.Image.Image | None = None) -> int:
        """Number of function evaluations for the first image."""
        told = self._told(model, image)
        return nfe(model, self._sampling(model, told), told)

    def steps_of(self, model: Model, image: PIL.Image.Image | None = None) -> Iterator[Step]:
        """The sampler's steps, the same as `Model.sample` takes; `image` is what a model makes others from.

        Raises:
            ValueError: the model cannot do it.
        """
        told = self._told(model, image)
        return sample_steps(model, self.seeds, told, self._sampling(model, told))

    def names(self, model: Model) -> list[str]:
        """What each image is, in words."""
        labels = self.labels(model) or [-1] * self.count
        words = [f", {model.class_names[k]}" if k >= 0 else "" for k in labels]
        return [f"seed {seed}{word}" for seed, word in zip(self.seeds, words, strict=True)]

    def _sampling(self, model: Model, told: Condition) -> SamplingConfig:
        # Not spoken where it is the run's own: a model without classes refuses guidance.
        guidance = None if self.guidance == model.config.sampling.guidance else self.guidance
        interval = self.interval.strip() or None
        given = self.sampler, self.steps, guidance, None, (), interval
        sampling = sampling_config(model.config, *given, guide=model.guide is not None)
        acts = says_something(told) or model.guide is not None or not model.config.is_conditional
        if not acts and sampling.guidance != 1 and (guidance is not None or interval):
            raise ValueError(
                f"Guidance {self.guidance:g} has nothing to strengthen here: choose what to make, or set it to 1."
            )
        return with_acting_guidance(sampling, acts, asked=False)

    def _told(self, model: Model, image: PIL.Image.Image | None) -> Condition:
        attributes = stated(model.config.attributes, self.attributes)
        return model.told(self.seeds, self.model_label, attributes, checked_image(model.config, image))


class Shown(NamedTuple):
    """One moment of sampling."""

    step: int
    """Steps taken so far."""
    sigma: float
    seconds: float
    pixels: UInt8[Tensor, "b c h w"]


class Film:
    """The frames of a sampling that was watched, for its animation."""

    def __init__(self, steps: int):
        self.frames: list[grids.Frame] = []
        self._kept = {round(i) for i in torch.linspace(0, steps - 1, min(steps, grids.FILM_FRAMES)).tolist()}

    def watch(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Passes the steps on and keeps a few frames of the first images."""
        for i, step in enumerate(steps):
            if i in self._kept:
                few = Step(step.sigma, step.x[: grids.FILM_IMAGES], step.x0[: grids.FILM_IMAGES])
                self.frames.append(grids.Frame(noisy(few), to_pixels(few.x0)))
            yield step

    def gif(self) -> bytes:
        """The animation as a file's content."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "film.gif"
            grids.save_animation(self.frames, path)
            return path.read_bytes()


def noisy(step: Step) -> UInt8[Tensor, "b c h w"]:
    """The sampler's x as pixels, scaled to the range that DDPM's x_t has."""
    return to_pixels(step.x / torch.sqrt(1 + step.sigma**2))


def shown(steps: Iterator[Step], view: View, stop: threading.Event) -> Iterator[Shown]:
    """The moments that a page has time to show: the first, the last, and those at least `SHOW_SECONDS` apart.

    After `stop` no further step is taken: the one reached is the last.
    """
    began, last, moment = time.monotonic(), 0.0, None
    for i, step in enumerate(steps, 1):
        now = time.monotonic()
        moment = (i, step)
        if stop.is_set():
            break
        if now - last >= SHOW_SECONDS:
            last = now
            yield _moment(i, step, view, now - began)
            moment = None
            if stop.is_set():  # Before the next step, not after it.
                return
    if moment is not None:
        yield _moment(*moment, view, time.monotonic() - began)


def _moment(i: int, step: Step, view: View, seconds: float) -> Shown:
    return Shown(i, float(step.sigma), seconds, to_pixels(step.x0) if view == "x0" else noisy(step))


def label_choices(class_names: Sequence[str]) -> list[tuple[str, str]]:
    """What can be asked for, as it is shown and as `Request.label` takes it."""
    if not class_names:
        return [("no classes", EVERY_CLASS)]
    return [("every class in turn", EVERY_CLASS), ("no class", NO_CLASS), *((name, name) for name in class_names)]
