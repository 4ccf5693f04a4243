"""What all tabs share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypeVar

import gradio as gr

from undiffuse.studio import markup
from undiffuse.studio.jobs import Trainer
from undiffuse.studio.line import Line, in_line
from undiffuse.studio.models import Models
from undiffuse.studio.places import Places
from undiffuse.studio.reports import Reports
from undiffuse.studio.visitors import Stops, explain

T = TypeVar("T")


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
    sampling: Line = field(default_factory=Line)
    """For everything that runs a network."""
    exploring: Line = field(default_factory=Line)
    """For looking through images."""

    def __post_init__(self) -> None:
        self.models = Models(self.places)
        self.trainer = Trainer(self.temporary)
        self.reports = Reports(self.temporary / "reports")

    def in_turn(self, request: gr.Request, tab: str, work: Callable[[Event], Iterator[str]]) -> Iterator[str]:
        """What a tab shows of work with a network: where the visitor stands in line, the work, or why it failed.

        `work` gets the flag that the visitor's stop button sets, which leaves the line too.
        """
        try:
            with self.stops.working(request, tab) as stop, self.sampling.place() as place:
                for before in place.waiting(stop):
                    yield markup.empty(f"{in_line(before)} Stop leaves the line.", running=True)
                if stop.is_set():
                    yield markup.empty("You left the line before it was your turn.")
                    return
                yield from work(stop)
        except Exception as error:
            yield markup.stage(markup.note(explain(error), "trouble"))

    def one_by_one(self, work: Callable[[], T]) -> T:
        """The result of quick work with a network, when it is its turn.

        Raises:
            ValueError: the line is full.
        """
        with self.sampling.place() as place:
            for _ in place.waiting(Event()):
                pass
            return work()
