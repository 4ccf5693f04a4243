"""Noise levels that `undiffuse tune-sampler` found for a model: tuned_samplers.json, and when they are used."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from undiffuse.config import SamplingConfig
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.utils.files import write_atomically
from undiffuse.utils.names import TUNABLE
from undiffuse.utils.terminal import log
from undiffuse.utils.validation import STRICT, sentence

NAME = "tuned_samplers.json"

MOST_BYTES = 2**22
"""Of the file; more is not read."""

Error = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class TunedSchedule:
    """The noise levels found for one sampler and number of steps, and what they were found for."""

    sampling: SamplingConfig
    """All options of the sampler, the noise levels among them."""
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the file of the weights that they were found with."""
    images_seen: Annotated[int, Field(ge=0)]
    """In training, by these weights."""
    measure: Literal["pixel error", "bits/dim"]
    """pixel error: root mean square difference to the same seeds' images of many steps, where pixels are in [-1, 1].
    bits/dim: the variational bound of images over these steps."""
    error: Error
    """On images that were not used to find the levels."""
    default_error: Error
    """The same with the noise levels that are used without tuning."""
    images_measured: Annotated[int, Field(ge=1)]

    def __post_init__(self) -> None:
        sigmas = self.sampling.sigmas
        if isinstance(sigmas, str) or len(sigmas) != self.sampling.steps:
            raise ValueError(f"its sigmas are not {self.sampling.steps} noise levels")
        if self.sampling.sampler not in TUNABLE:
            raise ValueError(f"sampler {self.sampling.sampler} is not among {', '.join(TUNABLE)}")

    @property
    def is_better(self) -> bool:
        """Whether it is worth using."""
        return self.error < self.default_error

    @property
    def for_options(self) -> SamplingConfig:
        """The options that it was found for; precision does not matter."""
        return comparable(self.sampling)

    def __str__(self) -> str:
        what = f"{self.sampling.steps} {self.sampling.sampler} steps"
        return f"{what}: {self.measure} {self.error:.4f} instead of {self.default_error:.4f}"


@dataclass(frozen=True, config=STRICT)
class _File:
    schedules: tuple[TunedSchedule, ...]
    version: Literal[1] = 1


def comparable(sampling: SamplingConfig) -> SamplingConfig:
    """The options apart from the noise levels and the precision: equal where the same levels serve."""
    return replace(sampling, sigmas="auto", precision="auto")


def tuned_schedules(run: Run) -> list[TunedSchedule]:
    """The run's tuned schedules: those made here, then those that came with a model of the package.

    Raises:
        ValueError: a file is damaged.
    """
    folders = dict.fromkeys([run.output_folder, run.folder])
    return [schedule for folder in folders for schedule in _read(folder / NAME)]


def save_tuned(run: Run, schedule: TunedSchedule) -> Path:
    """Writes a schedule into the run, in place of an older one for the same options, and returns the file.

    Raises:
        ValueError: the file that is there is damaged.
        OSError: the folder cannot be written to.
    """
    file = run.output_folder / NAME
    kept = [each for each in _read(file) if each.for_options != schedule.for_options]
    content = _File(tuple(sorted([*kept, schedule], key=lambda s: (s.sampling.sampler, s.sampling.steps))))
    write_atomically(file, json.dumps(asdict(content), indent=1) + "\n")
    return file


def with_tuned(
    sampling: SamplingConfig, run: Run, checkpoint: Checkpoint, weights: str, autoguided: bool = False
) -> SamplingConfig:
    """The options with the run's tuned noise levels, where sigmas is auto or tuned and there are any for them.

    Found for other weights, levels are never used; found for another guidance, only where sigmas is tuned. A notice
    says which levels are used, or why those that are there are not.

    Raises:
        ValueError: sigmas is tuned and there are none; the file is damaged.
    """
    if sampling.sigmas not in ("auto", "tuned") or (sampling.sigmas == "auto" and sampling.sampler not in TUNABLE):
        return sampling
    what = sampling.sampler, sampling.steps
    found = [each for each in tuned_schedules(run) if (each.sampling.sampler, each.sampling.steps) == what]
    usable = [each for each in found if each.weights_sha256 == checkpoint.digest(weights)]
    exact = [each for each in usable if each.for_options == comparable(sampling) and not autoguided]
    chosen = exact or (usable if sampling.sigmas == "tuned" else [])
    if chosen:
        log.info(f"Tuned noise levels for {chosen[0]}.")
        return replace(sampling, sigmas=chosen[0].sampling.sigmas)
    again = f"undiffuse tune-sampler {run.name} --sampler {sampling.sampler} --steps {sampling.steps}"
    if sampling.sigmas == "tuned":
        raise ValueError(f"{_missing(found, sampling)}: run {again}, or choose --set sigmas=auto.")
    if found:
        log.info(f"{_reason(found, usable, autoguided)}, so the usual ones are used: {again} finds others.")
    return sampling


def _missing(found: Sequence[TunedSchedule], sampling: SamplingConfig) -> str:
    if found:
        return f"The tuned noise levels are of other weights, after {found[0].images_seen:,} images"
    return f"There are no tuned noise levels for {sampling.steps} {sampling.sampler} steps"


def _reason(found: Sequence[TunedSchedule], usable: Sequence[TunedSchedule], autoguided: bool) -> str:
    if not usable:
        return f"The tuned noise levels are of other weights, after {found[0].images_seen:,} images"
    other = "without a guide" if autoguided else f"for guidance {usable[0].sampling.guidance:g} and its other options"
    return f"The tuned noise levels were found {other}"


def _read(file: Path) -> tuple[TunedSchedule, ...]:
    """Raises ValueError where the file is not what `save_tuned` writes."""
    try:
        if not file.exists():
            return ()
        with open(file, "rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        return TypeAdapter(_File).validate_json(content).schedules
    except (OSError, ValueError) as error:
        reason = sentence(error) if isinstance(error, ValidationError) else str(error)
        raise ValueError(f"{file.absolute()} is damaged ({reason}): remove it, and tune the sampler again.") from error
