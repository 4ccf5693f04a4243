"""The table of edits: one row each, which the command, `--help`, the checks and the docs all read. Loads no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from undiffuse.utils.parsing import at_least


@dataclass(frozen=True)
class Task:
    """What there is to know about an edit besides how it is made."""

    about: str
    """One line for `--help` and the docs."""
    options: tuple[str, ...] = ()
    """Those that only some edits have."""
    required: tuple[str, ...] = ()
    """Those that have no default."""
    images: tuple[int, ...] = (1,)
    """How many it takes."""
    sampler: str | None = None
    """The one that is best for it; None for the run's."""
    clip: bool = False
    """Whether predictions are always clipped to the pixels' range."""
    steps: int | None = None
    """How many it needs; None for the run's."""


TASKS = {
    "inpaint": Task(
        "regenerates the part that is white in the mask, and keeps the rest to the bit",
        ("mask", "resamplings"),
        ("mask",),
        sampler="euler_ancestral",
    ),
    "vary": Task("makes images that are like one, the less the higher the strength", ("strength",)),
    "interpolate": Task(
        "goes from one image to another, or from a seed to another", ("to_seed",), (), (0, 2), "ipndm", steps=36
    ),
    "colorize": Task("gives a gray image colors", ("noise",), sampler="euler_ancestral", clip=True),
    "deblur": Task("sharpens a blurred image", ("blur", "noise"), ("blur",), sampler="euler_ancestral", clip=True),
    "enlarge": Task(
        "enlarges a small image to the model's size",
        ("noise",),
        sampler="euler_ancestral",
        clip=True,
    ),
}

TaskName = Literal[tuple(TASKS)]  # ty: ignore[invalid-type-form]

NEEDED = {
    "mask": "an image that is white where new pixels are wanted",
    "blur": "its standard deviation in pixels, such as 1",
}
"""What an option without a default takes."""


def tasks_help() -> str:
    """One line that says what each edit does, for `--help`."""
    return f"{'; '.join(f'{name} {task.about}' for name, task in TASKS.items())}."


def check_options(task: str, images: int, **options: object) -> None:
    """Checks what was given for an edit; options that were not given are None.

    Raises:
        ValueError: there is no such edit, an option is not for it, is missing, or is out of its range.
    """
    if task not in TASKS:
        raise ValueError(f"There is no edit {task}: choose {', '.join(TASKS)}.")
    row = TASKS[task]
    for name, value in options.items():
        if value is not None and name not in row.options:
            users = " and ".join(other for other, each in TASKS.items() if name in each.options)
            raise ValueError(f"{_option(name)} does nothing for {task}: it is for {users}.")
        if value is None and name in row.required:
            raise ValueError(f"{task} needs {_option(name)}: give {NEEDED[name]}.")
    if images not in row.images:
        needed = " or ".join({0: "no image", 1: "one image", 2: "two images"}[count] for count in row.images)
        raise ValueError(f"{task} needs {needed} given with --image, not {images}.")
    _check_range("strength", options.get("strength"), 0, 1)
    _check_range("blur", options.get("blur"), 0.01, 100)
    _check_range("noise", options.get("noise"), 0, 255)
    for name, least in (("resamplings", 1), ("to_seed", 0)):
        value = options.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"{_option(name)} {value} is not a whole number.")
        if isinstance(value, int):
            at_least(least, **{name: value})


def _check_range(name: str, value: object, least: float, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{_option(name)} {value} is out of range: give {least:g} to {most:g}.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
