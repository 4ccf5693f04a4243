"""Every number that exploring images gives: what statistics.json holds."""

import json
from dataclasses import asdict, dataclass

from undiffuse.exploration.colors import Colors
from undiffuse.exploration.framing import Framing
from undiffuse.exploration.inventory import Balance, Inventory
from undiffuse.exploration.named_duplicates import NamedDuplicates
from undiffuse.exploration.noising import Noising
from undiffuse.exploration.suggestion import Suggestion
from undiffuse.utils.names import Fit

VERSION = 2
"""Of statistics.json."""


@dataclass(frozen=True)
class Statistics:
    """The numbers; docs/explore.md explains each of them."""

    name: str
    split: str
    size: tuple[int, int]
    fit: Fit
    channels: int
    inventory: Inventory
    balance: Balance | None
    framing: Framing
    colors: Colors
    duplicates: NamedDuplicates
    augmentation: tuple[str, ...]
    """What was done to the augmented samples, in order, with its parameters."""
    noising: Noising
    suggestion: Suggestion | None = None
    version: int = VERSION


def to_json(statistics: Statistics) -> str:
    return json.dumps(asdict(statistics), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
