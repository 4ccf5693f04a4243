"""Pieces of the page. All text is escaped: names of files and classes may hold markup."""

import io
import math
from collections.abc import Sequence
from html import escape

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from undiffuse.report.grids import to_pil
from undiffuse.report.page import data_url

LARGEST_TILE = 176
"""Pixels of the page that an image is shown at, at most."""


def note(text: str, kind: str = "") -> str:
    """A sentence; of kind "trouble" it is one that asks for something to be done."""
    role = ' role="alert"' if kind == "trouble" else ""
    return f'<p class="note {kind}"{role}>{escape(text)}</p>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values in a row of small cards."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{cells}</dl>'


def rows(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and longer values, one pair a line."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f'<table class="rows">{lines}</table>'


def meter(fraction: float, text: str) -> str:
    """A bar with a line below it."""
    percent = 100 * min(max(fraction, 0.0), 1.0)
    return (
        f'<div class="meter" role="progressbar" aria-valuenow="{percent:.0f}">'
        f'<span style="width:{percent:.1f}%"></span></div><p class="status">{escape(text)}</p>'
    )


def stage(content: str, running: bool = False) -> str:
    """What a tab shows beside its controls; `running` lets the stop button appear."""
    return f'<div class="stage{" running" if running else ""}">{content}</div>'


def empty(text: str, running: bool = False) -> str:
    """A stage on which nothing has happened yet."""
    return stage(f'<p class="empty">{escape(text)}</p>', running)


def png_url(image: Image.Image) -> str:
    """The image inside the page, compressed quickly rather than well."""
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)
    return data_url(content.getvalue(), "png")


def tiles(pixels: UInt8[Tensor, "b c h w"], names: Sequence[str], columns: int | None = None) -> str:
    """The images, each with its own pixels, in rows of nearly a square; `names` describe them to those who cannot see.

    The browser enlarges them without smoothing.
    """
    count, _, height, width = pixels.shape
    columns = columns or min(count, max(1, math.ceil(math.sqrt(count * height / width))))
    widest = columns * min(LARGEST_TILE, math.ceil(1.4 * LARGEST_TILE * width / height))
    images = "".join(
        f'<img class="pixels" decoding="sync" src="{png_url(to_pil(each))}" alt="{name}" title="{name}">'
        for each, name in zip(pixels, map(escape, names), strict=True)
    )
    shape = (
        f"--columns:{columns};--widest:{widest}px;--shape:{columns * width / (math.ceil(count / columns) * height):.4f}"
    )
    return f'<div class="tiles" style="{shape}">{images}</div>'


def download(content: bytes, kind: str, name: str, text: str) -> str:
    """A link that saves the content, which is in the page itself: no file is left on the server."""
    return f'<a class="download" download="{escape(name)}" href="{data_url(content, kind)}">{escape(text)}</a>'


def png_bytes(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
