"""One self-contained page of figures and tables: opens offline, fits a phone, follows the reader's dark mode."""

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
    """An image in the page, with its caption."""

    source: str
    """A data: URL, so that the page needs no other file."""
    caption: str
    pixels: bool = False
    """Keep the edges of pixels sharp when the page is zoomed."""
    dark: str = ""
    """Another data: URL, which replaces `source` in dark mode."""


@dataclass(frozen=True)
class Fold:
    """A table that opens when its summary is clicked: for details of any length that few readers want."""

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
    """A command to copy."""
    side_by_side: bool = False
    """Figures and table in two columns, if the screen is wide enough."""


def from_file(file: Path, caption: str) -> Figure:
    """A PNG or GIF file, unchanged."""
    return Figure(data_url(file.read_bytes(), file.suffix.removeprefix(".").lower()), caption, pixels=True)


def from_image(image: Image.Image, caption: str) -> Figure:
    """An image, saved as a PNG."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return Figure(data_url(content.getvalue(), "png"), caption, pixels=True)


def from_png(light: bytes, dark: bytes, caption: str) -> Figure:
    """A PNG file for light mode, and one for dark mode."""
    return Figure(data_url(light, "png"), caption, dark=data_url(dark, "png"))


def from_plot(plot: style.Plot, caption: str) -> Figure:
    """A matplotlib figure, drawn once for light mode and once for dark mode."""
    return from_png(style.png(plot, style.LIGHT), style.png(plot, style.DARK), caption)


def write_page(
    path: Path, title: str, lead: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Writes the page. All text is escaped: names of files and classes may hold markup.

    Args:
        lead: The paragraph below the title.
        headline: Names and values of the most important numbers.

    Raises:
        OSError: `path` cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html").render(title=title, lead=lead, headline=headline, sections=sections)
    write_atomically(path, page)


def data_url(content: bytes, kind: str) -> str:
    """A PNG or GIF file inside of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
