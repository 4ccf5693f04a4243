"""What people read while they wait: notices, and progress with speed and time left. Silent unless asked to speak."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from undiffuse.utils.text import duration, printable

T = TypeVar("T")

log = logging.getLogger("undiffuse")
"""Notices, one sentence each: a choice made for the user, a file left out, where something was written."""
log.addHandler(logging.NullHandler())

# No markup: names of people's files may hold brackets.
console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

UPDATE_SECONDS = 0.05

LOG_SECONDS = 10
"""Where the output is a file, not a terminal, a progress line is written this often."""


def shown(text: str) -> str:
    """The text without what would move a terminal's cursor or color it: names and settings may come from anywhere."""
    return "\n".join(map(printable, text.split("\n")))


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(shown(record.getMessage()))


_speaking = False


@contextmanager
def speaking(on: bool = True) -> Generator[None, None, None]:
    """Shows notices and progress inside, if `on`; otherwise leaves it as it is: a library is quiet by default."""
    global _speaking
    if not on or _speaking:
        yield
        return
    handler, level = _ToConsole(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    _speaking = True
    try:
        yield
    finally:
        _speaking = False
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def loading() -> Generator[None, None, None]:
    """Says so on a terminal while torch is loaded inside: that takes seconds, and on a busy machine many."""
    if not _speaking:
        yield
        return
    with console.status("Loading torch ..."):
        yield


@contextmanager
def silence() -> Generator[None, None, None]:
    """Shows neither notices nor progress inside: for work that is only part of what the user asked for."""
    global _speaking
    before, level = _speaking, log.level
    _speaking = False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _speaking = before
        log.setLevel(level)


Listener = Callable[[str, float], object]
"""Gets what is being done, and the fraction of it that is done."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def progress_to(listener: Listener) -> Generator[None, None, None]:
    """Calls `listener` for the progress inside, in this thread, whether the program speaks or not."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Passes `items` on and shows how many of `total` are done and when the rest will be."""
    with Meter(what, total) as meter:
        for done, item in enumerate(items, 1):
            yield item
            meter.reach(done, f"{done:,}/{total:,}")


class Meter:
    """A progress bar on a terminal, a line now and then in a log. Shows nothing unless the program is `speaking`."""

    def __init__(self, what: str, total: float):
        self.what, self.total, self.quiet = what, total, not _speaking
        self.started = self.last_line = time.monotonic()
        self.last_update = 0.0
        self.first = None
        self.listener = _listener.get()
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=self.quiet or not console.is_terminal,
        )

    def __enter__(self) -> "Meter":
        self.bar.start()
        self.task = self.bar.add_task(self.what, total=self.total, note="")
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def reach(self, done: float, note: str | Callable[[], str]) -> None:
        """Shows `done` of the total, and the note, which may be a function to call only when it is shown.

        Cheap enough to call for every item.
        """
        now = time.monotonic()
        if self.first is None:
            self.first = done, now
        if self.listener is not None:
            self.listener(self.what, done / self.total if self.total else 1.0)
        if self.quiet:
            return
        if console.is_terminal and now - self.last_update >= UPDATE_SECONDS:
            self.last_update = now
            self.bar.update(self.task, completed=done, note=_text(note))
        if not console.is_terminal and now - self.last_line >= LOG_SECONDS:
            self.last_line = now
            began, then = self.first  # Work done before this process began says nothing of its speed.
            left = f", {duration((now - then) * (self.total - done) / (done - began))} left" if done > began else ""
            print(f"{self.what}: {_text(note)}{left}", flush=True)


def _text(note: str | Callable[[], str]) -> str:
    return note if isinstance(note, str) else note()
