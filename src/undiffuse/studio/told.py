"""What a visitor tells a model besides the class: attributes, in one line of text, and an image to start from."""

import re

import gradio as gr
import PIL.Image

from undiffuse.config import Config
from undiffuse.data.columns import AttributesConfig, NumberColumn
from undiffuse.data.low_resolution import small_size
from undiffuse.sampling.attributes import find_attributes
from undiffuse.utils.text import size_text

MOST_NAMED = 12
"""Columns that are named; the others are counted."""

MOST_SHOWN = 3
"""Columns in an example."""


def columns_text(known: AttributesConfig) -> str:
    """What can be stated: brightness (0 to 255), light (dusk, noon)."""
    named = ", ".join(map(str, known.columns[:MOST_NAMED]))
    more = len(known.columns) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def example(known: AttributesConfig) -> str:
    """How it is written: brightness=70 light=noon."""
    values = [
        f"{each.mean:.3g}" if isinstance(each, NumberColumn) else each.values[0] for each in known.columns[:MOST_SHOWN]
    ]
    return " ".join(f"{each.name}={value}" for each, value in zip(known.columns, values, strict=False))


def stated(known: AttributesConfig | None, text: str) -> dict[str, str]:
    """The attributes in "brightness=70 light=late noon": a value ends where the next name begins. Each is checked.

    Raises:
        ValueError: a name or value is not one that the model knows.
    """
    if known is None or not text.strip():
        return {}
    longest_first = sorted((column.name for column in known.columns), key=len, reverse=True)
    before, *found = re.split(rf"(?:^|\s+)({'|'.join(map(re.escape, longest_first))})\s*=", text.strip())
    names, values = found[::2], [value.strip(" \n\t,;") for value in found[1::2]]
    if before or len({*names}) < len(names):
        raise ValueError(f"{text.strip()[:60]!r} is not understood: write each name once, as in {example(known)}.")
    attributes = dict(zip(names, values, strict=True))
    try:
        find_attributes(known, attributes)
    except ValueError as error:  # In the words of the page, which has no such option.
        raise ValueError(str(error).removeprefix("--attribute ")) from error
    return attributes


def attributes_box(known: AttributesConfig | None) -> gr.Textbox:
    """The field for them as a run needs it, empty; unseen for a run without a table."""
    if known is None:
        return gr.Textbox("", visible=False)
    return gr.Textbox("", visible=True, info=columns_text(known), placeholder=example(known))


def image_text(config: Config) -> str:
    """What the model takes for the image that it makes others from; "" for a model that makes them from noise alone."""
    other = config.image_condition
    if other is None:
        return ""
    if other.low_res is None:
        return "this run makes images from others, such as it was trained with"
    small = size_text(small_size(config.network.size, other.low_res))
    return f"this run enlarges images {other.low_res} times, from {small}; larger ones are made that small first"


def checked_image(config: Config, image: PIL.Image.Image | None) -> PIL.Image.Image | None:
    """The image that the model makes others from; None for a model that needs none.

    Raises:
        ValueError: it needs one and there is none.
    """
    if config.image_condition is None:
        return None  # It was dropped for another run.
    if image is None:
        raise ValueError(f"There is no image to start from, and {image_text(config).partition(',')[0]}: drop one.")
    return image
