"""What a search keeps in the run folder, so that it goes on where it was interrupted."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import safetensors.torch
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.sampling.tuned import TunedSchedule
from undiffuse.utils.files import read_small, write_atomically
from undiffuse.utils.validation import STRICT


@dataclass(frozen=True, config=STRICT)
class Progress:
    """A search so far: search.json."""

    images: Annotated[int, Field(ge=1, le=4096)]
    """As many again are checked with."""
    errors: tuple[tuple[tuple[float, ...], float], ...] = ()
    """Of the noise levels tried."""
    found: TunedSchedule | None = None
    """The outcome, once it is finished."""


class Outcome(NamedTuple):
    """What a search found."""

    schedule: TunedSchedule
    again: bool
    """Whether it was finished before."""


def key(digest: str, sampling: SamplingConfig) -> str:
    """A name for what is computed with these weights and options."""
    return hashlib.sha256(json.dumps([digest, asdict(sampling)], sort_keys=True).encode()).hexdigest()[:8]


def read_progress(file: Path) -> Progress | None:
    """The search's file; None if there is none yet.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return TypeAdapter(Progress).validate_json(read_small(file)) if file.exists() else None
    except ValueError as error:  # pydantic's too.
        raise ValueError(f"{file.absolute()} is damaged: remove it and tune again.") from error


def write_progress(file: Path, progress: Progress) -> None:
    """Writes the search's file whole or not at all."""
    write_atomically(file, json.dumps(asdict(progress)))


def read_tensors(file: Path, *names: str) -> list[Tensor]:
    """The tensors of these names.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        tensors = safetensors.torch.load_file(file)
        return [tensors[name] for name in names]
    except (KeyError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file.absolute()} is damaged ({error}): remove it and tune again.") from error
