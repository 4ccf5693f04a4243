"""Everything that was found out about images: as numbers, for statistics.json, and as images to look at."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from undiffuse.data.source import Source
from undiffuse.data.store import Store
from undiffuse.exploration.before_after import Beside, beside
from undiffuse.exploration.colors import Colors, colors
from undiffuse.exploration.duplicates import find_duplicates
from undiffuse.exploration.framing import Framing, framing
from undiffuse.exploration.inventory import Balance, Inventory, balance, inventory
from undiffuse.exploration.named_duplicates import Copies, ShownPair, copies, shown_pairs
from undiffuse.exploration.noising import Curve, Noising, curves, noising
from undiffuse.exploration.samples import Samples, samples
from undiffuse.exploration.scan import scan
from undiffuse.exploration.suggestion import Suggestion
from undiffuse.utils.names import Fit

VERSION = 1
"""Of statistics.json."""


@dataclass(frozen=True)
class Findings:
    """The numbers. docs/explore.md explains each."""

    name: str
    split: str
    size: tuple[int, int]
    fit: Fit
    channels: int
    inventory: Inventory
    balance: Balance | None
    framing: Framing
    colors: Colors
    copies: Copies
    augmentation: tuple[str, ...]
    """What was done to the augmented samples, in order, with its parameters."""
    noising: Noising
    suggestion: Suggestion | None = None
    version: int = VERSION


@dataclass(frozen=True)
class Exhibits:
    """The images that go with them."""

    samples: Samples
    beside: Sequence[Beside]
    mean_image: Float[np.ndarray, "h w c"]
    sure_pairs: Sequence[ShownPair]
    doubtful_pairs: Sequence[ShownPair]
    schedules: tuple[Curve, ...]
    seed: int
    """Of the samples, their augmentation and the noise."""


def explore(source: Source, store: Store, fit: Fit, seed: int = 0) -> tuple[Findings, Exhibits]:
    """Looks at everything but how fast this machine is: for that see `suggestion`."""
    found = inventory(store)
    scanned = scan(store)
    pairs = find_duplicates(scanned)
    drawn, schedules = samples(store, seed=seed), curves()
    sure, doubtful = shown_pairs(store, pairs)
    findings = Findings(
        name=store.name,
        split=store.split,
        size=store.size,
        fit=fit,
        channels=store.channels,
        inventory=found,
        balance=balance(found),
        framing=framing(found.shapes(), store.size, fit),
        colors=colors(scanned),
        copies=copies(store, pairs, found.splits),
        augmentation=drawn.transforms,
        noising=noising(schedules),
    )
    return findings, Exhibits(drawn, beside(source, store), scanned.mean_image, sure, doubtful, schedules, seed)


def to_json(findings: Findings) -> str:
    return json.dumps(asdict(findings), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
