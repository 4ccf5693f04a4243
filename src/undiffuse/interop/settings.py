"""Other programs' settings in small JSON files: bounded in length, checked by type, with no unknown setting ignored.

Such a file may hold anything, so its values are shortened and stripped of control characters before they are shown.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from undiffuse.data.paths import printable
from undiffuse.utils.validation import sentence

S = TypeVar("S")

MAX_BYTES = 2**20
"""No real config is longer; a hostile one could be of any length."""


def safe_text(value: Any, max_length: int = 80) -> str:
    """A foreign value, fit to be shown in a message."""
    text = printable(f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def unsupported(where: Path, name: str, value: Any, supported: str) -> str:
    """The message for a setting that undiffuse lacks; `supported` is what it has instead."""
    return f"{where.absolute()} has {name} {safe_text(value)}, which undiffuse does not support: {supported}."


def reason(error: ValueError) -> str:
    """What a config class says about values that it refuses, in one sentence."""
    return sentence(error) if isinstance(error, ValidationError) else str(error)


def read_json(file: Path) -> dict[str, Any]:
    """The values in a small JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too long, or does not hold a JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file.absolute()}: get the whole folder.")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file.absolute()} is longer than {MAX_BYTES:,} bytes, so it is not a config: get it again.")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{file.absolute()} is nested too deeply to be a config: get it again.") from error
    except ValueError as error:  # UnicodeDecodeError is one too.
        raise ValueError(f"{file.absolute()} is not JSON ({error}): get it again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file.absolute()} does not hold a JSON object of settings: get it again.")
    return values


def parse_settings(values: dict[str, Any], settings_class: type[S], file: Path) -> S:
    """The values as a dataclass. Names that begin with _ are comments.

    Raises:
        ValueError: a value has the wrong type, or a setting is unknown.
    """
    settings = {name: value for name, value in values.items() if not name.startswith("_")}
    known = {field.name for field in fields(settings_class)}  # ty: ignore[invalid-argument-type]
    unknown = sorted(name for name, value in settings.items() if name not in known and value is not None)
    if unknown:
        raise ValueError(f"{file.absolute()} has {safe_text(unknown[0])}, a setting that undiffuse does not know.")
    try:
        return TypeAdapter(settings_class).validate_python({n: v for n, v in settings.items() if n in known})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{file.absolute()} has a wrong {name}: {first['msg']}.") from error


def settings_dict(settings: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings as JSON writes them, without those named and those that are None by default and left so."""
    unset = {
        field.name for field in fields(settings) if field.default is None and getattr(settings, field.name) is None
    }
    return {name: value for name, value in asdict(settings).items() if name not in unset | set(without)}
