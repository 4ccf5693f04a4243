"""How long samples took to make, kept beside them: timing.json has one record for each time that some were made."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from undiffuse.utils.files import read_small, write_atomically

FILE = "timing.json"


@dataclass(frozen=True)
class Timing:
    """Samples that were made in one go, and on what."""

    first_seed: int
    last_seed: int
    seconds_per_image: float
    """Of sampling alone: the network was warm, and neither loading nor writing files counts."""
    device: str
    threads: int
    processes: int
    batch: int

    @property
    def machine(self) -> str:
        """What it was measured on, in words."""
        what = f"{self.threads} CPU threads" if self.device == "cpu" and self.threads > 1 else self.device
        each = "" if self.processes == 1 else f"{self.processes} processes with "
        return f"{each}{'1 CPU thread' if what == 'cpu' else what}, batches of {self.batch}"


def record(folder: Path, timing: Timing) -> None:
    """Adds to the folder's records."""
    records = [asdict(each) for each in (*_read(folder), timing)]
    write_atomically(folder / FILE, json.dumps(records, indent=2) + "\n")


def timing_of(folder: Path, seeds: Sequence[int]) -> Timing | None:
    """The newest record of all these samples; None if they were not made in one go, or before there were records."""
    covering = [each for each in _read(folder) if each.first_seed <= seeds[0] and seeds[-1] <= each.last_seed]
    return covering[-1] if covering else None


def _read(folder: Path) -> list[Timing]:
    try:
        return [Timing(**each) for each in json.loads(read_small(folder / FILE))]
    except (OSError, ValueError, TypeError):  # Missing or damaged: then it is not known how long the samples took.
        return []
