"""How sizes, numbers and counts are written."""

from collections.abc import Mapping

LISTED = 8
"""Sizes, formats and modes that are listed by name; the others are counted together."""


def by(size: tuple[int, int]) -> str:
    """Height x width, as `--size` takes it."""
    return f"{size[0]}x{size[1]}"


def number(value: float, digits: int = 3) -> str:
    """With so many digits that count; large numbers whole, and never as powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def plural(count: int, what: str) -> str:
    """1 image, 2 images."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def listed(counts: Mapping[str, int], most: int = LISTED) -> str:
    first = [f"{name} {images:,}" for name, images in list(counts.items())[:most]]
    rest = list(counts.values())[most:]
    return ", ".join(first) + (f", and {len(rest):,} more with {sum(rest):,}" if rest else "")
