"""Small JSON files of settings from elsewhere: read with bounds, checked by type, and nothing unknown overlooked.

What stands in such files is shown short and without control characters: it may be anything.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from undiffuse.data.paths import printable

S = TypeVar("S")

LONGEST_BYTES = 2**20
"""No config is longer; a hostile one could be of any length."""


def shown(value: Any, longest: int = 80) -> str:
    """A foreign value for an error's sentence."""
    text = printable(f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= longest else f"{text[:longest]}..."


def refusal(where: Path, name: str, value: Any, what: str) -> str:
    """The sentence for a setting that we lack; `what` is what there is instead."""
    return f"{where.absolute()} has {name} {shown(value)}, which undiffuse cannot express: {what}."


def read_json(file: Path) -> dict[str, Any]:
    """The values in a small JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too long, or holds no JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file.absolute()}: get the whole folder.")
    if file.stat().st_size > LONGEST_BYTES:
        raise ValueError(f"{file.absolute()} is longer than {LONGEST_BYTES:,} bytes: it is no config.")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError.
        raise ValueError(f"{file.absolute()} is no JSON ({error}): get it again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file.absolute()} holds no JSON object, and so no settings.")
    return values


def as_settings(values: dict[str, Any], kind: type[S], file: Path) -> S:
    """The values as the dataclass `kind`. Names that begin with _ are remarks.

    Raises:
        ValueError: a value has the wrong type, or there is a setting that we do not know.
    """
    said = {name: value for name, value in values.items() if not name.startswith("_")}
    known = {field.name for field in fields(kind)}  # ty: ignore[invalid-argument-type]
    unknown = sorted(name for name, value in said.items() if name not in known and value is not None)
    if unknown:
        raise ValueError(f"{file.absolute()} has {shown(unknown[0])}, a setting that undiffuse does not know.")
    try:
        return TypeAdapter(kind).validate_python({name: value for name, value in said.items() if name in known})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{file.absolute()} has a wrong {where}: {first['msg']}.") from error


def spoken(settings: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings as JSON writes them; what is None unless said otherwise goes unsaid, as do those named."""
    unsaid = {
        field.name for field in fields(settings) if field.default is None and getattr(settings, field.name) is None
    }
    return {name: value for name, value in asdict(settings).items() if name not in unsaid | set(without)}
