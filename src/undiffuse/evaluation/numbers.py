"""How metrics are written on pages and in the terminal."""

import math
from typing import Any

_IN_WORDS = {True: "yes", False: "no", None: "none"}


def number(value: float) -> str:
    """With three or more significant digits, whatever the size."""
    if not math.isfinite(value):
        return "none"
    if abs(value) < 1e-6:
        return "0"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}"


def with_spread(value: float, spread: float | None) -> str:
    """The value ± its spread, the spread with two significant digits; without one the value alone."""
    if spread is None:
        return number(value)
    return f"{number(value)} ± {spread:,.0f}" if spread >= 100 else f"{number(value)} ± {spread:.2g}"


def finite(value: Any) -> Any:
    """Nested values as JSON has them: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as the rows of a table: name, value."""
    if isinstance(values, dict):
        return [row for key, value in values.items() for row in flat(value, f"{prefix} {key}".strip())]
    if isinstance(values, list):
        return [row for i, value in enumerate(values, 1) for row in flat(value, f"{prefix} {i}")]
    return [(prefix.replace("_", " "), _IN_WORDS.get(values, values) if isinstance(values, bool | None) else values)]
