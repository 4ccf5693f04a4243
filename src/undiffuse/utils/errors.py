"""What can go wrong though the command was right, and what was left out with a reason."""

import os
from dataclasses import dataclass


class WorkFailed(RuntimeError):
    """The work could not be finished. The message says what is left of it; the command line exits with 1.

    A wrong path or value is a ValueError or FileNotFoundError instead, and exits with 2.
    """


class PeerFailed(WorkFailed):
    """Another of the processes that work together failed. Raised in the one process that tells the user."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the work and nothing is lost; the command line exits with 0.

    In Python it is what Ctrl-C raises anywhere, with a message. Not an Exception: code that skips bad images must not
    swallow it.
    """


@dataclass(frozen=True)
class Skipped:
    """Stands for a result that was not computed."""

    reason: str
    """One sentence for the reader."""


def sentence(error: BaseException) -> str:
    """What an error says, for the user; of the system's own errors without numbers and quotes."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {os.fspath(error.filename) if error.filename else 'no file named'}"
    return str(error)
