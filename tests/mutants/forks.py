"""Pytest in forks of a process that has loaded the dependencies, so that a run of a few tests costs a second."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

PRELOADED = (
    "torch",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.nn.parallel",
    "torch.utils.tensorboard.writer",
    "torchvision.transforms.v2",
    "torch_fidelity",
    "sklearn.datasets",
    "scipy.linalg",
    "matplotlib.figure",
    "pydantic",
    "tyro",
    "rich.progress",
    "jinja2",
    "PIL.Image",
    "fsspec",
    "jaxtyping",
    "beartype",
    "pytest",
    "diffusers",
)
"""Dependencies, but nothing of undiffuse: that is what is mutated."""


def preload() -> None:
    """Loads the dependencies; those that are not installed are left to the tests, which skip or fail without them."""
    for module in PRELOADED:
        try:
            importlib.import_module(module)
        except ImportError:
            print(f"{module} is not installed: the tests that need it will not help.", flush=True)


def in_fork(work: Callable[[], int], tree: Path, output: Path, seconds: float) -> int | None:
    """Calls `work` in a fork with the package and the tests of `tree`; its exit code, or None if it took too long.

    What it and its own processes print goes to `output`.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _child(work, tree, output)
    deadline = time.monotonic() + seconds
    pause = 0.02
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _kill_group(child)  # Processes of its own that are left, such as a fork server.
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.2, 1.2 * pause)
    _kill_group(child)
    os.waitpid(child, 0)
    return None


def _child(work: Callable[[], int], tree: Path, output: Path) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        source = str(tree / "src")
        os.chdir(tree)
        os.environ["PYTHONPATH"] = source
        sys.path.insert(0, source)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill_group(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
