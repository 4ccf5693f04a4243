"""Attributes: the numbers and categories that a model is told of, as users state them; and what each seed is told."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from undiffuse.config import Config
from undiffuse.data.columns import AttributesConfig, CategoryColumn, Column, Value, checked_value
from undiffuse.runs.run import Run
from undiffuse.runs.told import read_told
from undiffuse.sampling.labels import MOST_LABELS
from undiffuse.utils.conditions import Condition, Conditions, simplest
from undiffuse.utils.randomness import ImageRandomness

Attributes = Mapping[str, Value | Sequence[Value]] | Sequence[str]
"""{"age": 30, "smile": "yes"}, or ("age=30", "smile=yes") as on the command line. A value is a number or a word, a list
of them, or "20*3,30", which names them in turn and how often each; None or nothing: missing."""

Stated = dict[str, tuple[Value, ...]]
"""The values of each attribute that is stated; seeds take them in turn."""


def find_attributes(known: AttributesConfig | None, attributes: Attributes) -> Stated:
    """The attributes, each checked against the model's columns.

    Raises:
        ValueError: the model has no such column or value, or attributes are not written as they must be.
    """
    if not attributes:
        return {}
    if known is None:
        raise ValueError("--attribute: this model was trained without a table (train --condition FILE.csv).")
    given = attributes if isinstance(attributes, Mapping) else _by_name(attributes)
    return {name: _values(known.find(name), value) for name, value in given.items()}


def conditions_of(config: Config, labels: Sequence[int] | None, stated: Stated, turns: Sequence[int]) -> Condition:
    """What the network is told where these labels and attributes are stated; `turns` are the places in their values."""
    label, known = None if labels is None else torch.tensor(labels), config.attributes
    if known is None:
        return label

    def column(each: Column) -> list[Value]:
        values = stated.get(each.name, (None,))
        return [values[turn % len(values)] for turn in turns]

    numbers = [[torch.nan if v is None else each.encoded(float(v)) for v in column(each)] for each in known.numbers]
    places = [[-1 if v is None else each.values.index(str(v)) for v in column(each)] for each in known.categories]
    return simplest(
        Conditions(
            label,
            numbers=torch.tensor(numbers).T.contiguous() if numbers else None,
            categories=torch.tensor(places).T.contiguous() if places else None,
        )
    )


def of_training_images(config: Config, run: Run, seeds: Sequence[int]) -> Conditions:
    """For each seed, what the network was told of a training image that the seed chooses at random.

    Raises:
        ValueError: the run does not say what that was.
    """
    told = read_told(run)
    images = next(len(each) for each in told if each is not None)
    chosen = (ImageRandomness("told", 0, seeds).uniform() * images).long()

    def rows(tensor: Tensor) -> Tensor:
        return tensor[chosen]

    return told.map(rows) if config.class_names else told._replace(label=None).map(rows)


def _by_name(attributes: Sequence[str]) -> dict[str, str]:
    texts = [attributes] if isinstance(attributes, str) else list(attributes)
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name.strip() in given:
            raise ValueError(f"--attribute {text}: write NAME=VALUE, each name once, as in age=30 smile=yes.")
        given[name.strip()] = value
    return given


def _values(column: Column, value: Value | Sequence[Value]) -> tuple[Value, ...]:
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError(f"--attribute {column.name}: the list is empty.")
        return tuple(checked_value(column, each) for each in value)
    text = str(value)
    if not isinstance(value, str) or (isinstance(column, CategoryColumn) and text in column.values):
        return (checked_value(column, value),)
    values: list[Value] = []
    for term in text.split(","):
        each, star, times = term.strip().rpartition("*")
        if not star or (isinstance(column, CategoryColumn) and term.strip() in column.values):
            each, times = term.strip(), "1"
        if not times.isdecimal() or not 1 <= int(times) <= MOST_LABELS - len(values):
            raise ValueError(
                f"--attribute {column.name}={text}: write how often after each value, as in 20*4,30, with at most "
                f"{MOST_LABELS:,} in all."
            )
        values += int(times) * [checked_value(column, each)]
    return tuple(values)
