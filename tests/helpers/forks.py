"""Processes that work together as under torchrun, but are forks of this one, which has loaded everything: quicker.

No torchrun watches over them: when one fails, they have to end by themselves.
"""

import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def fork(rank: int, processes: int, port: int, said: Path, work: Callable[[], object]) -> int:
    """Starts the process of this rank, with one thread and all that it says in the file; returns its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ |= {name: str(value) for name, value in names.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        output = os.open(said, os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), line_buffering=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), line_buffering=True)
        torch.set_num_threads(1)
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        print(f"TRACEBACK {type(error).__name__}: {error}")
    os._exit(code)


def together(
    folder: Path, processes: int, work: Callable[[int], object], seconds: float = 200
) -> tuple[list[int], str]:
    """Lets all ranks do the work: their exit codes, and what they said. Those that take too long are killed."""
    port, deadline = free_port(), time.monotonic() + seconds
    said = [folder / f"said-{port}-{rank}" for rank in range(processes)]
    pids = [fork(rank, processes, port, said[rank], partial(work, rank)) for rank in range(processes)]
    codes: dict[int, int] = {}
    while len(codes) < processes:
        for pid in (each for each in pids if each not in codes):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            if (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        time.sleep(0.02)
    return [codes[pid] for pid in pids], "\n".join(each.read_text() for each in said)
