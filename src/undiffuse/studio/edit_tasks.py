"""What a visitor may do with an image: the edits of `undiffuse edit`, and what each starts from."""

from dataclasses import replace
from typing import Annotated, Any

import PIL.Image
import torch
from jaxtyping import UInt8
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.inverse_problems import area_downsampling, gaussian_blur, grayscale
from undiffuse.sampling.attributes import conditions_of, find_attributes
from undiffuse.sampling.edit_tasks import TASKS
from undiffuse.sampling.editing import check_can_edit
from undiffuse.sampling.edits import Edit, colorize, deblur, enlarge, inpaint, interpolate_images, signed, vary
from undiffuse.sampling.labels import find_label
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import check_guidance, sampling_config
from undiffuse.studio.drawing import as_read, painted
from undiffuse.studio.sampling import NO_CLASS, Request
from undiffuse.studio.told import stated
from undiffuse.utils.conditions import NO_LABEL, Conditions, as_conditions
from undiffuse.utils.validation import STRICT

MOST_IMAGES = 16

STEPS = 18
"""Where the edit needs no other number."""

CHOICES = {
    "inpaint": "regenerate what is painted over",
    "vary": "make images like it",
    "interpolate": "go from one image to another",
    "colorize": "give it colors",
    "deblur": "sharpen it",
    "enlarge": "enlarge it",
}
"""The edits as the page calls them."""

CONTROLS = {
    "inpaint": (),
    "vary": ("strength",),
    "interpolate": ("second",),
    "colorize": ("noise",),
    "deblur": ("blur", "noise"),
    "enlarge": ("factor", "noise"),
}
"""Those that only some edits have."""

TAKE = {
    "interpolate": "Take the images of this seed and the next",
    "colorize": "Take the image of this seed, made gray",
    "deblur": "Take the image of this seed, blurred",
    "enlarge": "Take the image of this seed, made small",
}
"""What the button says that takes an image from the model."""


@dataclass(frozen=True, config=STRICT)
class Options:
    """Those of one edit alone. Everything is checked here, whatever the page allowed."""

    task: Annotated[str, Field(max_length=60)] = "inpaint"
    strength: Annotated[float, Field(ge=0, le=1)] = 0.5
    blur: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """Standard deviation in pixels at the model's size."""
    factor: Annotated[int, Field(ge=2, le=8)] = 4
    """The image that is enlarged has a side of the model's, divided by this."""
    noise: Annotated[float, Field(ge=0, le=255)] = 1.0
    """Of the given image, in levels from 0 to 255."""

    def __post_init__(self) -> None:
        if self.task not in CHOICES:
            raise ValueError(f"There is no edit {self.task!r} here: choose one of {', '.join(CHOICES)}.")

    def shape(self, model: Model) -> tuple[int, int, int]:
        """(channels, height, width) of the image that is given."""
        channels, height, width = model.shape
        by = self.factor if self.task == "enlarge" else 1
        return channels, max(1, height // by), max(1, width // by)


def request_of(options: Options, **wishes: Any) -> Request:
    """What is asked for besides; the sampler is the best for the edit.

    Raises:
        ValueError: it is out of range.
    """
    asked = Request(sampler=TASKS[options.task].sampler or "ipndm", **wishes)
    if asked.count > MOST_IMAGES:
        raise ValueError(f"{asked.count} images are too many to look at: choose at most {MOST_IMAGES}.")
    if options.task == "interpolate" and asked.count < 2:
        raise ValueError("The way from one image to another has at least 2 images: choose more.")
    return asked


def tasks_of(model_channels: int) -> list[tuple[str, str]]:
    """The edits that a model of so many channels can do, as they are shown and as `Options.task` takes them."""
    return [(text, name) for name, text in CHOICES.items() if name != "colorize" or model_channels >= 3]


def prepared_edit(
    model: Model, asked: Request, options: Options, drawn: dict | None, second: PIL.Image.Image | None = None
) -> Edit:
    """The edit of what is in the editor.

    Raises:
        ValueError: an image is missing, nothing is painted, or the model cannot do it.
    """
    check_can_edit(model.config, options.task, None, asked.run or "This model")
    image = given_image(model, options, (drawn or {}).get("background"))
    sampler = model.config.sampling.sampler if model.diffusion.jumps else asked.sampler
    sampling = sampling_config(model.config, sampler, asked.steps)
    sampling = replace(sampling, clip=sampling.clip or TASKS[options.task].clip)
    label = _told(model, asked)
    if options.task == "inpaint":
        return inpaint(model, image, painted(drawn or {}, model.shape[1:]), sampling, label)
    if options.task == "vary":
        return vary(model, image, sampling, label, options.strength)
    if options.task == "interpolate":
        both = torch.stack([image, given_image(model, options, second, "second image")])
        return interpolate_images(model, both, asked.count, sampling, label)
    if options.task == "deblur":
        return deblur(model, image, sampling, label, options.blur, options.noise)
    return {"colorize": colorize, "enlarge": enlarge}[options.task](model, image, sampling, label, options.noise)


def _told(model: Model, asked: Request) -> Conditions:
    """What the model is told for all results."""
    index = NO_LABEL if asked.label == NO_CLASS else find_label(model.class_names, asked.label)
    if index == NO_LABEL and model.class_names:
        check_guidance(model.config)  # Whether it ever saw an image without its label.
    attributes = find_attributes(model.config.attributes, stated(model.config.attributes, asked.attributes))
    for name, values in attributes.items():
        if len(values) > 1:
            raise ValueError(f"{name} has {len(values)} values: an edit takes one, for all results.")
    return as_conditions(conditions_of(model.config, [index] if model.class_names else None, attributes, [0]))


def given_image(
    model: Model, options: Options, image: PIL.Image.Image | None, name: str = "image"
) -> UInt8[Tensor, "c h w"]:
    """What was dropped, as the edit takes it.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    if image is None:
        raise ValueError(f"There is no {name}: drop one, or take the image of a seed.")
    return as_read(image, options.shape(model), model.config.data.fit)


def sampled(model: Model, asked: Request, options: Options) -> list[UInt8[Tensor, "d k l"]]:
    """Images of the model's own, made what the edit undoes.

    Raises:
        ValueError: the model cannot edit, or there is no such class or attribute.
    """
    check_can_edit(model.config, options.task, None, asked.run or "This model")
    label, attributes = asked.model_label, stated(model.config.attributes, asked.attributes)
    label = label if model.class_names else None
    images = model.sample(asked.count, label=label, attributes=attributes, seed=asked.seed).to_torch()
    return [worsened(model, options, image) for image in images]


def worsened(model: Model, options: Options, pixels: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "d k l"]:
    """An image of the model's, made what the edit undoes: gray, blurred or small."""
    operators = {
        "colorize": lambda: grayscale(model.shape),
        "deblur": lambda: gaussian_blur(model.shape, options.blur),
        "enlarge": lambda: area_downsampling(model.shape, options.shape(model)[1:]),
    }
    if options.task not in operators:
        return pixels
    return to_pixels(operators[options.task]()(signed(pixels)[None]))[0]
