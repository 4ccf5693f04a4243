"""How sizes, numbers, counts, times and foreign names are written."""

import re
from collections.abc import Mapping

LISTED = 8
"""Up to this many names are listed; the others are counted together."""

CHANNELS = {1: "gray", 3: "RGB", 4: "RGBA"}
"""The names of images with 1, 3 and 4 channels."""


NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Lone surrogates that stand for no byte, such as JSON may hold."""


def printable(name: str) -> str:
    """The name with control characters, and bytes that are not text, made visible."""
    text = NO_BYTES.sub("\N{REPLACEMENT CHARACTER}", name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def size_text(size: tuple[int, int]) -> str:
    """Height x width, as `--size` takes it."""
    return f"{size[0]}x{size[1]}"


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits; large ones as whole numbers rather than with exponents."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def plural(count: int, what: str) -> str:
    """1 image, 2 images."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def in_batches(done: int, batch: int, total: int, step: int, steps: int) -> str:
    """Where work on a batch stands, after `done` images of other batches: 65-128 of 500, step 3/18."""
    return f"{done + 1:,}-{done + batch:,} of {total:,}, step {step}/{steps}"


def listed(counts: Mapping[str, int], most: int = LISTED) -> str:
    """The first names with their counts, and how many more there are."""
    first = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    rest = list(counts.values())[most:]
    return ", ".join(first) + (f", and {len(rest):,} more with {sum(rest):,}" if rest else "")


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 12 min, 3 h 20 min, 4 days, 7 years."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds >= 2 * 365 * 86400:
        return f"{seconds / (365 * 86400):,.0f} years"
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:.0f} days"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
