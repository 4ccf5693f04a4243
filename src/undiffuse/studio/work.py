"""Slow work in the background, with what it says of its progress, so that a page can show it."""

import threading
import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from undiffuse.utils.terminal import progress_to

T = TypeVar("T")

LOOK_SECONDS = 0.3
"""From one look at the work to the next."""


class Progress(Generic[T]):
    """Work that goes on in a thread of its own."""

    def __init__(self, work: Callable[[], T]):
        self.what, self.fraction = "", 0.0
        self.began = time.monotonic()
        self._work, self._result, self._error = work, None, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def _run(self) -> None:
        try:
            with progress_to(self._hear):
                self._result = self._work()
        except Exception as error:  # Raised again where the result is asked for.
            self._error = error

    def _hear(self, what: str, fraction: float) -> None:
        self.what, self.fraction = what, fraction

    def looks(self) -> "Generator[Progress[T], None, T]":
        """Yields itself now and then until the work is done, and returns what it returned, or raises what it raised."""
        while self._thread.is_alive():
            yield self
            self._thread.join(LOOK_SECONDS)
        if self._error is not None:
            raise self._error
        return self._result  # ty: ignore[invalid-explicit-return]
