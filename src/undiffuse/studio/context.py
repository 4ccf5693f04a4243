"""What all tabs share."""

from dataclasses import dataclass, field
from pathlib import Path

from undiffuse.studio.jobs import Trainer
from undiffuse.studio.models import Models
from undiffuse.studio.places import Places
from undiffuse.studio.reports import Reports
from undiffuse.studio.visitors import Stops

SAMPLING = "sampling"
"""The queue for everything that runs a network: one piece of work at a time, the others wait their turn."""

EXPLORING = "exploring"
"""The queue for looking through images."""


@dataclass
class Studio:
    """What the studio knows while it runs. Nothing here belongs to one visitor alone."""

    places: Places
    temporary: Path
    """A folder for what nobody needs once the studio has ended."""
    models: Models = field(init=False)
    trainer: Trainer = field(init=False)
    reports: Reports = field(init=False)
    stops: Stops = field(default_factory=Stops)

    def __post_init__(self) -> None:
        self.models = Models(self.places)
        self.trainer = Trainer(self.temporary)
        self.reports = Reports(self.temporary / "reports")
