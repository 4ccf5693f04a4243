"""What the options that several commands share ask for."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undiffuse.utils.names import DATASETS, Channels, Fit, Split

if TYPE_CHECKING:
    from undiffuse.config import Config, SamplingConfig
    from undiffuse.data.store import DataConfig


CHURNS = ("churn", "churn_min", "churn_max", "churn_noise")
READ_BY = {"eta": ("ddim",), "variance": ("ancestral",), "order": ("lms", "ipndm"), **dict.fromkeys(CHURNS, ("heun",))}
"""The settings that only some samplers read."""


def data_config(
    data: str, data_root: str | None, split: Split, size: tuple[int, int] | None, fit: Fit, channels: Channels
) -> "DataConfig":
    """The options for data, with absolute paths: a run's config must lead to its images from anywhere."""
    from undiffuse.data.store import DataConfig

    return DataConfig(
        data=data if data in DATASETS else str(Path(data).expanduser().absolute()),
        data_root=data_root and str(Path(data_root).expanduser().absolute()),
        split=split,
        size=size,
        fit=fit,
        channels=None if channels == "auto" else int(channels),
    )


def outside(folder: Path, data: str) -> None:
    """Raises ValueError if what is written to `folder` would be taken for images of `data` the next time."""
    if data not in DATASETS and folder.resolve().is_relative_to(Path(data).expanduser().resolve()):
        raise ValueError(
            f"{folder.absolute()} lies among the images in {Path(data).expanduser().absolute()}, which must stay as "
            "they are: give --out a folder elsewhere."
        )


def output(folder: Path, *data: str) -> Path:
    """The folder, made before the work that ends in it, which may take hours.

    Raises:
        ValueError: it cannot be made, or lies among the images of one of `data`.
    """
    folder = folder.expanduser()
    for images_of in data:
        outside(folder, images_of)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{folder.absolute()} cannot be made ({reason}): give --out another folder.") from error
    return folder


def no_use(what: str, **given: object) -> None:
    """Raises ValueError for the first option that was given, for `what` reads none of them."""
    for name, value in given.items():
        if value:
            raise ValueError(f"--{name.replace('_', '-')} does nothing with {what}: leave it out.")


def sampling(
    config: "Config", sampler: str | None, steps: int | None, guidance: float | None, settings: Sequence[str] = ()
) -> "SamplingConfig":
    """The run's way of sampling with what was asked for in place of its own.

    Raises:
        ValueError: a setting does not fit, or the model cannot do it.
    """
    from undiffuse.config import SamplingConfig, with_settings
    from undiffuse.sampling.model import SLOW, at_few_steps, check_guidance, grid

    options = {"sampler": sampler, "steps": steps, "guidance": guidance}
    settings = [*settings, *(f"{name}={value}" for name, value in options.items() if value is not None)]
    named = {setting.partition("=")[0] for setting in settings}
    known = [field.name for field in fields(SamplingConfig)]
    unknown = sorted(named - set(known))
    if unknown:
        raise ValueError(f"--set {unknown[0]} is no setting of sampling: choose {', '.join(known)}.")
    how = with_settings(config, [f"sampling.{setting}" for setting in settings]).sampling
    if "guidance" in named:
        check_guidance(config)
    if "steps" in named and not named & {"sampler", "grid", *READ_BY}:
        how = at_few_steps(how)
    elif "steps" not in named and how.sampler not in SLOW and config.sampling.sampler in SLOW:
        how = replace(how, steps=SamplingConfig().steps)  # Another sampler's thousands are none of its own.
    for name in named & READ_BY.keys():
        if how.sampler not in READ_BY[name]:
            raise ValueError(f"--set {name} does nothing for {how.sampler}: it is for {' and '.join(READ_BY[name])}.")
    grid(config.diffusion, how)  # Fails for steps that the model does not have.
    return how


def at_least(least: int, **values: int) -> None:
    """Raises ValueError for the first option below `least`."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value} is too few: take at least {least}.")
