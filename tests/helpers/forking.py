"""Several processes as torchrun starts them, but forked from one that has loaded torch: in a second instead of ten.

The one they are forked from is started on first use and does nothing else: a process that has trained cannot be forked
safely, since torch's threads are not copied.
"""

import io
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

import undiffuse

SECONDS = 300
"""How long processes may take."""

PACKAGE = "UNDIFFUSE_TESTED"
"""The environment's name for where the package under test is: a relative PYTHONPATH would lead elsewhere."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *(f"undiffuse.{module}" for module in undiffuse.WHERE.values()),
        *(f"undiffuse.commands.{command}" for command in ("evaluate", "sample", "train")),
        "undiffuse.cli",
        # What a process would load once it works, in seconds each.
        "tyro._cli",
        "sklearn.datasets",
        "torch._dynamo",
        "torch.distributed.nn.functional",
        "torch.distributed.fsdp",
    ]
)


def together(size: int, work: Callable[..., object], *arguments: Any, seconds: float = SECONDS) -> list[str]:
    """Calls `work`, which must be importable, in each of `size` processes in this folder; returns what each printed.

    Raises:
        AssertionError: one of them failed, or did not end in time; with everything that was printed.
    """
    folder, port = Path.cwd(), free_port()
    files = [folder / f".printed-{rank}" for rank in range(size)]
    environment = {**os.environ, PACKAGE: str(undiffuse.__file__)}
    processes = [
        CONTEXT.Process(target=_work, args=(folder, rank, size, port, files[rank], environment, work, arguments))
        for rank in range(size)
    ]
    codes = _codes(processes, seconds)
    printed = [file.read_text() if file.exists() else "" for file in files]
    for file in files:
        file.unlink(missing_ok=True)
    assert codes == [0] * size, "\n".join([f"exit codes {codes}, None: not in time", *printed])
    return printed


def forked(
    folder: Path, size: int, work: Callable[[int], object], seconds: float = SECONDS
) -> tuple[list[int | None], str]:
    """Calls `work` with the rank in each of `size` forks of this process; returns exit codes and all that was printed.

    For work that cannot be imported. This process must not have computed with several threads.
    """
    context, port = multiprocessing.get_context("fork"), free_port()
    files = [folder / f".printed-{port}-{rank}" for rank in range(size)]
    processes = [context.Process(target=_forked, args=(rank, size, port, files[rank], work)) for rank in range(size)]
    codes = _codes(processes, seconds)
    return codes, "\n".join(file.read_text() for file in files if file.exists())


def _codes(processes: Sequence[BaseProcess], seconds: float) -> list[int | None]:
    """Starts the processes and waits for them so long; the exit codes, None where it was not in time."""
    for process in processes:
        process.start()
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def become(rank: int, size: int, port: int, printed: Path) -> None:
    """Makes this process one of `size` on this machine, as torchrun does, and sends what it prints to a file."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    file = os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # Not to be closed with the object: it may be replaced once more.
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _work(
    folder: Path,
    rank: int,
    size: int,
    port: int,
    printed: Path,
    environment: dict[str, str],
    work: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    os.chdir(folder)
    os.environ |= environment
    become(rank, size, port, printed)
    assert undiffuse.__file__ == environment[PACKAGE], f"{undiffuse.__file__} is not what is tested"
    _end(work, *arguments)


def _forked(rank: int, size: int, port: int, printed: Path, work: Callable[[int], object]) -> None:
    become(rank, size, port, printed)
    torch.set_num_threads(1)
    _end(work, rank)


def _end(work: Callable[..., object], *arguments: Any) -> None:
    """Ends this process after its work, at once: what was forked with it is not to be cleaned up twice."""
    code = 1
    try:
        work(*arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
