"""Words of the command line as values."""

from undiffuse.utils.names import PRESETS

_FACTORS = {"k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def count(text: str, what: str) -> int:
    """2M, 500k, 1e6 or 1_000 as a number.

    Raises:
        ValueError: it is no positive whole number.
    """
    factor = _FACTORS.get(text[-1:].lower(), 1)
    number = text[:-1] if factor > 1 else text
    try:
        value = float(number) * factor
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e15 or value != int(value):
        raise ValueError(f"{what} {text} is no count: write for example 50000, 50k or 2M.")
    return int(value)


def size(text: str) -> tuple[int, int]:
    """64 or 48x64 (height x width) as (height, width).

    Raises:
        ValueError: it is neither.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"--size {text} is no size: write 64, or height x width as in 48x64.")
    return int(sides[0]), int(sides[-1])


def preset(name: str | None, data: str) -> str:
    """The preset of that name, or the one for this data.

    Raises:
        ValueError: there is no such preset.
    """
    if name is None:
        return "digits" if data == "digits" else "small"
    if name not in PRESETS:
        raise ValueError(f"--preset {name} does not exist: choose {', '.join(PRESETS)}.")
    return name
