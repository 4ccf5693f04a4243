"""How much memory one file from outside may take while it is read: all limits of readers follow from this number."""

import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from threading import Condition

VARIABLE = "UNDIFFUSE_MEMORY_GB"
"""The environment variable that raises the limits, or lowers them."""

DEFAULT_GB = 1.5
"""What the limits that readers state are made for."""

MOST_GB = 256
"""Beyond that nobody is told to raise the limit."""


def memory_gb() -> float:
    """The memory that one file may take, from the environment.

    Raises:
        ValueError: it is not a positive number there.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        value = float(text or DEFAULT_GB)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{VARIABLE} {text} is not a number of gigabytes: write for example {VARIABLE}=3.")
    return value


def scaled(limit: int) -> int:
    """A reader's own limit, made for the default memory, in proportion to what is allowed now."""
    return int(limit * memory_gb() / DEFAULT_GB)


def cache_key() -> tuple[float, ...]:
    """Belongs to the key of whatever is kept of files: with other limits, other files can be read."""
    return () if memory_gb() == DEFAULT_GB else (memory_gb(),)


def how_to_raise(needed: float, limit: float) -> str:
    """What to set so that something passes which needs `needed` where `limit` is allowed now."""
    gigabytes = math.ceil(10 * memory_gb() * needed / limit) / 10
    if gigabytes > MOST_GB:
        return "make it smaller"
    return f"{VARIABLE}={gigabytes:g} raises the limit, where there is so much memory"


class Budget:
    """Bytes that threads share: whoever needs more than is left waits. One alone may always go on."""

    def __init__(self) -> None:
        self._taken, self._changed = 0, Condition()

    @contextmanager
    def take(self, needed: int, limit: int) -> Generator[None, None, None]:
        """Waits until `needed` more bytes stay within `limit`, and gives them back at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + needed <= limit)
            self._taken += needed
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()
