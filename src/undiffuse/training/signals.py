"""SIGINT (Ctrl-C) and SIGTERM as requests to stop after the current step, with everything saved."""

import os
import signal
import threading
from types import FrameType

from undiffuse.utils.errors import Interrupted
from undiffuse.utils.terminal import interject


class StopRequest:
    """Catches the first SIGINT or SIGTERM inside its `with`; a second one does what it usually does.

    Before `saves_itself` is set nothing is worth saving yet, and the signal ends the work at once. Outside the main
    thread Python allows no signal handlers: there signals are left alone.
    """

    def __init__(self) -> None:
        self.requested = False
        self.saves_itself = False
        self._usual = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._usual[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        name = signal.Signals(number).name
        if not self.saves_itself:
            raise Interrupted(
                f"{name}: stopped before the first step, so there is nothing to save: the same command starts again."
            )
        # Where several processes work, this one may have been told to stop because another failed, which says why.
        if os.environ.get("WORLD_SIZE", "1") == "1":
            interject(f"{name}: stopping after this step. (A second one stops at once, back at the last checkpoint.)")

    def _restore(self) -> None:
        for number, usual in self._usual.items():
            signal.signal(number, usual)
        self._usual = {}
