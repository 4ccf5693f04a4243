"""Who asked for what: a way to stop one visitor's work, and sentences in place of stack traces."""

import functools
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from pydantic import ValidationError

from undiffuse.utils import validation
from undiffuse.utils.errors import WorkFailed, sentence
from undiffuse.utils.terminal import errors


class Stops:
    """One flag for each piece of work that runs now, under the visitor's session and the name of the tab."""

    def __init__(self) -> None:
        self._flags: dict[tuple[str, str], threading.Event] = {}

    @contextmanager
    def working(self, request: gr.Request, tab: str) -> Generator[threading.Event, None, None]:
        """The flag that `stop` sets, while the work inside goes on."""
        key, flag = (str(request.session_hash), tab), threading.Event()
        self._flags[key] = flag
        try:
            yield flag
        finally:
            if self._flags.get(key) is flag:
                del self._flags[key]

    def stopper(self, tab: str | None = None) -> Callable[[gr.Request], None]:
        """A function for a button, which asks the visitor's work in a tab to stop, or in all of them."""

        def stop(request: gr.Request) -> None:
            for (session, name), flag in list(self._flags.items()):
                if session == str(request.session_hash) and tab in (None, name):
                    flag.set()

        return stop

    def __len__(self) -> int:
        return len(self._flags)


def streamed(handler: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The handler as gradio knows a generator: it looks whether the function itself yields, which decorators hide."""
    return functools.update_wrapper(lambda *values: (yield from handler(*values)), handler)


def explain(error: Exception) -> str:
    """What went wrong, in one sentence for the visitor. What only a bug can cause goes to the terminal as well."""
    if isinstance(error, ValidationError):
        return f"{validation.sentence(error)}."
    if isinstance(error, ValueError | OSError | WorkFailed):
        return sentence(error)
    errors.print("".join(traceback.format_exception(error)))
    return f"The studio failed ({type(error).__name__}): the terminal in which it runs says where."
