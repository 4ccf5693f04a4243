"""Configs are pydantic dataclasses: types and ranges are checked by the library, and errors are one sentence."""

import reprlib

from pydantic import ConfigDict, ValidationError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For every config: no unknown settings, no infinities. Use as `@dataclass(frozen=True, config=STRICT)`."""

_short = reprlib.Repr()  # A value may come from a hostile file: long and deep ones are cut.
_short.maxstring = _short.maxother = _short.maxlong = 60


def sentence(error: ValidationError, prefix: str = "") -> str:
    """The first problem in one sentence that names the setting and its value."""
    first = error.errors()[0]
    where = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"])])
    if first["type"] == "value_error":  # Raised by our own check, whose sentence says all.
        return f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown setting {where}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{where or 'config'} is missing"
    return f"{where or 'config'} {_short.repr(first['input'])}: {first['msg']}"
