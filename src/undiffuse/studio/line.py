"""Visitors who want the same thing wait in line: in the order in which they came, told how many are before them."""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from undiffuse.utils.text import plural

MOST_WAITING = 32
"""Visitors in a line, besides the one whose turn it is."""

LOOK_SECONDS = 0.3
"""From one look at whether the visitor still wants to wait to the next."""


class Line:
    """One piece of work at a time.

    Example:
        with line.place() as place:
            for before in place.waiting(stop):
                print(f"{before} before you")
    """

    def __init__(self, most_waiting: int = MOST_WAITING):
        self.most_waiting = most_waiting
        self._places: list[Place] = []
        self._moved = threading.Condition()

    @contextmanager
    def place(self) -> "Generator[Place, None, None]":
        """A place at the end of the line, which is left when the work inside ends.

        Raises:
            ValueError: the line is full.
        """
        mine = Place(self)
        with self._moved:
            if len(self._places) > self.most_waiting:
                raise ValueError("The line is full: try again in a minute.")
            self._places.append(mine)
        try:
            yield mine
        finally:
            with self._moved:
                self._places.remove(mine)
                self._moved.notify_all()

    def before(self, place: "Place") -> int:
        """How many are before this place, after a moment in which that may change."""
        with self._moved:
            if self._places[0] is not place:
                self._moved.wait(LOOK_SECONDS)
            return self._places.index(place)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, eq=False)
class Place:
    """A visitor's place in a line."""

    line: Line

    def waiting(self, stop: threading.Event) -> Iterator[int]:
        """Yields how many are before this place, as often as that changes, until it is first or `stop` is set."""
        told = 0
        while not stop.is_set() and (before := self.line.before(self)) > 0:
            if before != told:
                told = before
                yield before


def in_line(before: int) -> str:
    """Where a visitor stands, in words."""
    return f"{plural(before, 'visitor')} {'is' if before == 1 else 'are'} before you."
