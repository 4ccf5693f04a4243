"""What a piece of work takes, in a process of its own: forked, so that it starts in milliseconds."""

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")

MAX_BYTES = 8 * 2**30
"""A child that asks for more gets a MemoryError, so that a test that fails does not take the machine with it."""

MAX_SECONDS = 60


@dataclass(frozen=True)
class Measured:
    sentence: str
    """What the work returned, or what the error says that it raised."""
    mebibytes: float
    """The most memory that it held above what the process had before."""
    seconds: float
    """Of a processor, all threads together: others may be busy on the machine."""


def measured(work: Callable[[], str]) -> Measured:
    """Calls `work` in a fork of this process, which must not have computed with several threads.

    Raises:
        AssertionError: it did not end in time, or was killed.
    """
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _work(work, writable)
    os.close(writable)
    try:
        content = _all(readable, time.monotonic() + MAX_SECONDS)
    finally:
        os.close(readable)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert content, "it was killed, or did not end in time"
    return Measured(**json.loads(content))


def _all(readable: int, deadline: float) -> bytes:
    content = b""
    while select.select([readable], [], [], max(0.0, deadline - time.monotonic()))[0]:
        block = os.read(readable, 2**16)
        if not block:
            return content
        content += block
    return b""


def _work(work: Callable[[], str], writable: int) -> None:
    """Ends this process at once: what was forked with it is not to be cleaned up twice."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_now("VmSize") + MAX_BYTES, resource.RLIM_INFINITY))
        before, began = _begin(), time.process_time()
        try:
            sentence = work()
        except (ValueError, OSError) as error:
            sentence = str(error)
        except BaseException as error:  # No sentence: the test shows what it is.
            sentence = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - began
        about = {"sentence": sentence, "mebibytes": (_peak() - before) / 2**20, "seconds": seconds}
        os.write(writable, json.dumps(about).encode())
    finally:
        os._exit(0)


def _begin() -> int:
    """The memory held now, from which on the peak counts."""
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # The peak so far is forgotten.
        return _now("VmRSS")
    return _peak()


def _peak() -> int:
    if STATUS.exists():
        return _now("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _now(name: str) -> int:
    if not STATUS.exists():
        return 0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
