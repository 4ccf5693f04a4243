"""Numbers and sizes as people write them. Loads nothing slow, so that a typing mistake is answered at once."""

import math
import re
from collections.abc import Iterable

from undiffuse.utils.names import PRESETS

LOW_RES = "low-res:"
"""How a condition begins that is the image itself, made smaller by a factor."""

_FACTORS = {"k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def parse_count(value: int | str, option: str) -> int:
    """2M, 500k, 1e6, 1_000 or a number as a number of images.

    Raises:
        ValueError: it is not a positive whole number.
    """
    text = str(value)
    factor = _FACTORS.get(text[-1:].lower(), 1)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        number = 0.0
    if not 1 <= number < 1e15 or number != int(number):
        raise ValueError(f"{option} {text} is not a count: write for example 50000, 50k or 2M.")
    return int(number)


def parse_steps(values: Iterable[str]) -> tuple[int, ...]:
    """Numbers of steps with spaces or commas between them, as in 1 2 4 or 1,2,4.

    Raises:
        ValueError: one is not a positive whole number.
    """
    words = [word for value in values for word in value.split(",") if word]
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise ValueError(f"--steps {word} is not a number of steps: write for example 4 8 16, or 4,8,16.")
    return tuple(map(int, words))


def parse_ema_lengths(values: Iterable[str | float]) -> tuple[float, ...]:
    """Lengths of an EMA with spaces or commas between them, as in 0.05 0.1 or 0.05,0.1.

    Raises:
        ValueError: one is not a number, or longer than any EMA whose weights grow toward the end, which is
            1 / sqrt(12) = 0.289.
    """
    words = [word for value in values for word in str(value).split(",") if word]
    for word in words:
        try:
            fits = 0.005 <= float(word) <= 0.28
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"--lengths {word} is not the length of an EMA: give fractions of the training, 0.005 to 0.28."
            )
    return tuple(map(float, words))


def parse_size(value: int | str | tuple[int, int]) -> tuple[int, int]:
    """64, "64", "48x64" (height x width) or (48, 64) as (height, width).

    Raises:
        ValueError: it is none of these.
    """
    sides = value.lower().split("x") if isinstance(value, str) else value if isinstance(value, tuple) else (value,)
    if not 1 <= len(sides) <= 2 or not all(str(side).isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"--size {value} is not a size: write 64, or height x width as in 48x64.")
    return int(sides[0]), int(sides[-1])


def parse_interval(value: str | tuple[float, float]) -> tuple[float, float]:
    """Noise levels as in "0.28-1.6" or (0.28, 1.6).

    Raises:
        ValueError: it is neither, or the first is not below the second.
    """
    try:
        # The hyphen of an exponent is none between two numbers.
        low, high = map(float, re.split(r"(?<![eE])-", value) if isinstance(value, str) else value)
    except (ValueError, TypeError):
        low, high = 1.0, 0.0
    if not 0 <= low < high < math.inf:
        raise ValueError(f"--guidance-interval {value} is not an interval: write two noise levels, as in 0.28-1.6.")
    return low, high


def parse_low_res(condition: object) -> int | None:
    """The factor in "low-res:4"; None for any other condition.

    Raises:
        ValueError: it is not a factor above 1.
    """
    if not isinstance(condition, str) or not condition.startswith(LOW_RES):
        return None
    factor = condition.removeprefix(LOW_RES)
    if not factor.isdecimal() or int(factor) < 2:
        raise ValueError(f"--condition {condition} is not a factor: write low-res:2, low-res:4 or the like.")
    return int(factor)


def parse_preset(preset: str | None, data: object) -> str:
    """The preset's name; None takes the one for `data`.

    Raises:
        ValueError: there is no such preset.
    """
    if preset is None:
        return "digits" if isinstance(data, str) and data == "digits" else "small"
    if preset not in PRESETS:
        raise ValueError(f"--preset {preset} does not exist: choose {', '.join(PRESETS)}.")
    return preset


def at_least(least: int, **values: int) -> None:
    """Raises ValueError for the first option below `least`."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value} is too small: give at least {least}.")
