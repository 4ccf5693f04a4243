"""One self-contained page of figures and images: opens offline, on a phone, in the dark."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from undiffuse.report import style
from undiffuse.utils.files import write_atomically


@dataclass(frozen=True)
class Figure:
    """An image inside the page."""

    source: str
    """A data: address, so that the page needs no other file."""
    caption: str
    pixels: bool = False
    """Keep the pixels' edges sharp when the page is zoomed."""
    dark: str = ""
    """Another data: address, which takes the place of `source` where the reader's screen is dark."""


@dataclass(frozen=True)
class Fold:
    """A table behind a line that opens it: for what few readers want, at any length."""

    summary: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    opened: bool = False


@dataclass(frozen=True)
class Section:
    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = field(default_factory=list)
    folds: Sequence[Fold] = ()
    command: str = ""
    """What to type, ready to be copied."""
    side_by_side: bool = False
    """Images and table in two columns, where the screen is wide enough for both."""


def from_file(file: Path, caption: str) -> Figure:
    """A PNG or GIF file as it is."""
    kind = file.suffix.removeprefix(".").lower()
    return Figure(_address(file.read_bytes(), kind), caption, pixels=True)


def from_image(image: Image.Image, caption: str) -> Figure:
    content = io.BytesIO()
    image.save(content, "PNG")
    return Figure(_address(content.getvalue(), "png"), caption, pixels=True)


def from_png(light: bytes, dark: bytes, caption: str) -> Figure:
    """A PNG as it is, and another one for dark screens."""
    return Figure(_address(light, "png"), caption, dark=_address(dark, "png"))


def from_drawing(draw: style.Draw, caption: str) -> Figure:
    """A matplotlib figure, drawn for light screens and again for dark ones."""
    return from_png(style.png(draw, style.LIGHT), style.png(draw, style.DARK), caption)


def write_page(
    path: Path, title: str, lead: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Writes the page. What comes from file and class names is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html").render(title=title, lead=lead, headline=headline, sections=sections)
    write_atomically(path, page)


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
