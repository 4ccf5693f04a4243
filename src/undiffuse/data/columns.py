"""The columns of a table beside the images, and what their values are as a network's numbers and categories."""

import difflib
import re
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from undiffuse.utils.validation import STRICT

Value = float | str | None
"""Of a column, as the user writes it; None: missing."""

MISSING_WORDS = ("", "na", "n/a", "nan", "null", "none", "-", "?")
"""In any case."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class NumberColumn:
    """Numbers, standardized for the network by their mean and standard deviation over the images."""

    name: str
    mean: Finite
    deviation: Positive
    low: Finite
    """The least of them, and the greatest."""
    high: Finite

    def __str__(self) -> str:
        return f"{self.name} ({self.low:g} to {self.high:g})"

    def encoded(self, value: float) -> float:
        return (value - self.mean) / self.deviation


@dataclass(frozen=True, config=STRICT)
class CategoryColumn:
    """Words, of which the network knows the index."""

    name: str
    values: Annotated[tuple[str, ...], Field(min_length=2)]
    """Sorted."""

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.values) if len(self.values) <= 6 else f'{len(self.values)} values'})"


Column = NumberColumn | CategoryColumn


@dataclass(frozen=True, config=STRICT)
class AttributesConfig:
    """A table of numbers and categories that a network is told of."""

    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    content: str
    """A digest of all their values."""
    table: str | None = None
    """The file that they are from, at that time; null: older versions did not record it."""

    @property
    def numbers(self) -> list[NumberColumn]:
        return [column for column in self.columns if isinstance(column, NumberColumn)]

    @property
    def categories(self) -> list[CategoryColumn]:
        return [column for column in self.columns if isinstance(column, CategoryColumn)]

    def find(self, name: str) -> Column:
        """The column of this name.

        Raises:
            ValueError: there is none; the one with the nearest name is suggested.
        """
        by_name = {column.name: column for column in self.columns}
        if name in by_name:
            return by_name[name]
        near = difflib.get_close_matches(name, by_name, 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(list(by_name)[:12])}."
        raise ValueError(f"--attribute {name}: this model was not told of that; {hint}")


def checked_value(column: Column, value: object) -> Value:
    """The value as the column has it: a finite number, one of its words, or None.

    Raises:
        ValueError: it is none of them; the known range or the nearest word is named.
    """
    text = str(value).strip()  # None is one of MISSING_WORDS.
    if isinstance(column, CategoryColumn):
        return _word(column, text)
    if text.lower() in MISSING_WORDS:
        return None
    if not NUMBER.fullmatch(text) or abs(column.encoded(float(text))) > 1e6:
        raise ValueError(
            f"--attribute {column.name}={text} is not a number that it can have: in training they were from "
            f"{column.low:g} to {column.high:g}."
        )
    return float(text)


def _word(column: CategoryColumn, text: str) -> str | None:
    if text in column.values:
        return text
    if text.lower() in MISSING_WORDS:
        return None
    folded = {value.lower(): value for value in reversed(column.values)}
    near = difflib.get_close_matches(text.lower(), folded, 1, 0.6)
    known = ", ".join(column.values[:12]) + (", ..." if len(column.values) > 12 else "")
    hint = f"did you mean {folded[near[0]]}?" if near else f"choose {known}."
    raise ValueError(f"--attribute {column.name}={text}: in training it was never that; {hint}")
