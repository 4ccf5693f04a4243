"""What processes that work together know of each other's end: none of them waits for one that is gone.

Every process has a thread that sets a heartbeat in the store through which the processes found each other. A process
that fails says why there before it leaves. The others learn of it from the connection that closes, or else from the
store, within seconds; one that cannot leave by itself is ended by its thread.
"""

import json
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

import torch.distributed as dist

from undiffuse.utils.errors import WorkFailed, sentence
from undiffuse.utils.terminal import errors

BEAT_SECONDS = 1.0

SILENT_SECONDS = 3.5
"""A process that has not set its heartbeat for so long, when another finds its connections broken, is gone."""

LOST_SECONDS = 20.0
"""And without such a sign for so long: it may only be slow."""

GRACE_SECONDS = 6.0
"""How long a process may take to leave by itself after another has failed."""

LEFT = "left"
"""In place of its heartbeat, for a process that has nothing more to do with the others."""

NOT_KNOWN = "it was killed (memory may have run out), or its machine is gone"


@dataclass(frozen=True)
class Failure:
    """Why the processes cannot go on."""

    rank: int
    """Which of them failed first, as far as is known."""
    reason: str
    said: bool
    """It has said so itself; otherwise it is gone without a word."""
    interrupted: bool = False
    """It was asked to stop."""


class Peers:
    """The other processes, seen from this one."""

    def __init__(self, store: dist.Store, rank: int, size: int):
        self.store, self.rank, self.size = store, rank, size
        self._watched = store.clone()  # A connection of its own: the main thread may be waiting on the other.
        self._known: Failure | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="undiffuse peers", daemon=True)
        self.store.set(self._key(rank), "0")

    def start(self) -> None:
        """Starts the thread, once all processes have come here."""
        self._thread.start()

    def report(self, reason: str, interrupted: bool = False) -> None:
        """Tells the others that this process fails. If another did so first, that stays the reason."""
        self._report(self.store, Failure(self.rank, reason, said=True, interrupted=interrupted))

    def leave(self) -> None:
        """Ends the thread; from now on this process is not missed."""
        self._ended.set()
        self._thread.join()
        with suppress(RuntimeError):  # The process that has the store is gone. (DistStoreError, DistNetworkError.)
            self.store.set(self._key(self.rank), LEFT)

    def failure(self) -> Failure | None:
        """The failure of another process; waits until it must have shown. None: the others are well."""
        began, before = time.monotonic(), None
        try:
            while True:
                self._known = self._known or self._read(self.store)
                if self._known is not None:
                    return self._known if self._known.rank != self.rank else None
                beats = self._beats(self.store, range(self.size))
                before = before or beats
                if time.monotonic() - began > SILENT_SECONDS:
                    break
                time.sleep(0.1)
            silent = [rank for rank in beats if rank != self.rank and beats[rank] == before.get(rank)]
            if silent:
                self._report(self.store, Failure(silent[0], NOT_KNOWN, said=False))
                self._known = self._read(self.store)
        except RuntimeError:
            self._known = Failure(0, NOT_KNOWN, said=False)
        return self._known

    def sentence(self, failure: Failure) -> str:
        """What failed, for the user."""
        return f"process {failure.rank} of {self.size} failed: {failure.reason}"

    def speaks(self, failure: Failure) -> bool:
        """Whether this process is the one that tells the user of another's failure."""
        gone = failure.rank if not failure.said else -1
        return self.rank == (1 if gone == 0 else 0)

    def _watch(self) -> None:
        changed: dict[int, tuple[str, float]] = {}
        others = range(1, self.size) if self.rank == 0 else (0,)
        number = 0
        while not self._ended.wait(BEAT_SECONDS):
            number += 1
            try:
                self._watched.set(self._key(self.rank), str(number))
                failure = self._read(self._watched) or self._lost(changed, others)
            except RuntimeError:
                failure = Failure(0, NOT_KNOWN, said=False)
            if failure is not None:
                self._known = failure
                self._end(failure)
                return

    def _end(self, failure: Failure) -> None:
        """Gives the main thread the time to leave, then ends the process: it may wait for one that will never come."""
        if self._ended.wait(GRACE_SECONDS):
            return
        if failure.rank != self.rank and self.speaks(failure):
            errors.print(f"undiffuse: {self.sentence(failure)}. The same command resumes from the last checkpoint.")
        os._exit(1)

    def _lost(self, changed: dict[int, tuple[str, float]], others: Iterable[int]) -> Failure | None:
        """The failure of one whose heartbeat has been the same for too long."""
        now = time.monotonic()
        for rank, beat in self._beats(self._watched, others).items():
            if rank not in changed or changed[rank][0] != beat:
                changed[rank] = beat, now
            elif now - changed[rank][1] > LOST_SECONDS:
                failure = Failure(rank, NOT_KNOWN, said=False)
                self._report(self._watched, failure)
                return failure
        return None

    @classmethod
    def _beats(cls, store: dist.Store, ranks: Iterable[int]) -> dict[int, str]:
        """The heartbeats of those that have not left."""
        values = store.multi_get([cls._key(rank) for rank in ranks])
        return {rank: beat for rank, value in zip(ranks, values, strict=True) if (beat := value.decode()) != LEFT}

    @staticmethod
    def _key(rank: int) -> str:
        return f"beat/{rank}"

    @staticmethod
    def _read(store: dist.Store) -> Failure | None:
        return Failure(**json.loads(store.get("failure"))) if store.check(["failure"]) else None

    @staticmethod
    def _report(store: dist.Store, failure: Failure) -> None:
        with suppress(RuntimeError):  # The process that has the store is gone: the others see that for themselves.
            store.compare_set("failure", "", json.dumps(asdict(failure)))


def reason_of(error: BaseException) -> str:
    """Why a process failed, in one line."""
    text = sentence(error).strip().partition("\n")[0].rstrip(".")
    told = isinstance(error, ValueError | OSError | WorkFailed | KeyboardInterrupt) and text
    return text if told else f"{type(error).__name__}: {text}" if text else type(error).__name__
