"""Pytest in forks of a process that has loaded the package, so that a few tests cost a second.

A fork forgets the module that was changed and all that import it, directly or not, and loads those again.
"""

import contextlib
import importlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

from beartype._cache.cacheclear import clear_caches
from jaxtyping import install_import_hook

LEFT_OUT = {"undiffuse.__main__", "undiffuse.studio"}
"""Modules that are not loaded: they do work when they are, or take long."""


BROKEN = 70
"""The exit code of a fork in which the work itself failed, rather than a test."""


def preload(tree: Path) -> dict[str, set[str]]:
    """Loads the package in `tree`, checked as under pytest; returns by module which ones import it, directly or not."""
    sys.path[:0] = [str(tree / "src"), str(tree / "tests")]
    install_import_hook("undiffuse", "helpers.enforcement.enforce")
    imports: dict[str, set[str]] = {}
    for file in sorted((tree / "src" / "undiffuse").rglob("*.py")):
        name = ".".join(file.relative_to(tree / "src").with_suffix("").parts).removesuffix(".__init__")
        imports[name] = _imported(file.read_text(encoding="utf-8"))
        if not any(name == each or name.startswith(f"{each}.") for each in LEFT_OUT):
            importlib.import_module(name)
    importers: dict[str, set[str]] = {}
    for name in imports:
        reached, waiting = {name}, [name]
        while waiting:
            last = waiting.pop()
            new = {each for each, needs in imports.items() if last in needs} - reached
            reached |= new
            waiting += new
        importers[name] = reached
    return importers


def _imported(source: str) -> set[str]:
    """The modules of the package that a source imports, and perhaps names in them."""
    found = set(re.findall(r"(?:import|from) (undiffuse[\w.]*)", source))
    for package, names in re.findall(r"from (undiffuse[\w.]*) import \(?([\w, \n]+)", source):
        found |= {f"{package}.{name}" for name in re.findall(r"\w+", names)}
    return found


def in_fork(
    work: Callable[[], int], tree: Path, output: Path, seconds: float, changed: Collection[str] = ()
) -> int | None:
    """Calls `work` in a fork where the `changed` modules are loaded again; its exit code, or None if it took too long.

    What it and its own processes print goes to `output`.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _child(work, tree, output, changed)
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


def _child(work: Callable[[], int], tree: Path, output: Path, changed: Collection[str]) -> None:
    code = BROKEN
    try:
        os.setpgid(0, 0)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree / "src")  # For processes of its own.
        for name in changed:
            package, _, last = name.rpartition(".")
            if package and sys.modules.pop(name, None) is not None and package in sys.modules:
                vars(sys.modules[package]).pop(last, None)  # Otherwise `from package import last` finds the old.
        clear_caches()  # Beartype keeps hints by their text: the old classes would be asked for.
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
