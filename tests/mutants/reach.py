"""Which tests run which lines: recorded once for every test file, and again after the file has changed."""

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from mutants.forks import in_fork

SECONDS_A_FILE = 900
DEAREST = 20.0
"""CPU seconds of a test; one that takes longer is not run for a mutation."""


THROUGH_COMMANDS = {
    "data": ("commands/test_explore.py", "commands/test_train.py"),
    "evaluation": (
        "api/test_evaluate.py",
        "commands/test_compare.py",
        "commands/test_evaluate.py",
        "commands/test_measure.py",
    ),
    "interop": ("commands/test_export.py", "commands/test_import.py"),
    "runs": ("api/test_runs.py", "commands/test_train.py"),
    "sampling": ("commands/test_sample.py", "commands/test_edit.py"),
    "training": ("api/test_train.py", "commands/test_train.py"),
}
"""Test files outside an area's folder that run its modules all the way, and take long: the last to be asked."""


def cpu_seconds() -> float:
    """Of this process and of its children that have ended: other work on the machine changes nothing."""
    return sum(os.times()[:4])


class Recorder:
    """A pytest plugin that notes the lines of the package that each test runs.

    What fixtures run counts for all tests of the file, which may share them.
    """

    def __init__(self, package: str):
        self.package = package
        self.codes: dict[CodeType, str] = {}
        self.now: set[tuple[str, int]] = set()
        self.shared: set[tuple[str, int]] = set()
        self.tests: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        path = self.codes.get(code)
        if path is None:
            file = code.co_filename
            path = self.codes[code] = file[len(self.package) :] if file.startswith(self.package) else ""
        if not path:
            return None
        seen = self.now

        def line(frame: FrameType, event: str, argument: object) -> Any:
            if event == "line":
                seen.add((path, frame.f_lineno))
            return line

        seen.add((path, frame.f_lineno))
        return line

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        self.now = self.shared
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.now = set()
        self.call_began = cpu_seconds()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        if self.now is not self.shared:
            lines = sorted(self.now)
            self.tests[item.nodeid] = {"seconds": round(cpu_seconds() - self.call_began, 3), "lines": lines}
            self.now = self.shared
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.skipped:
            self.failed.append(report.nodeid)


def record(test_file: Path, tree: Path, cache: Path) -> dict[str, Any]:
    """The record of one test file, from the cache or made now."""
    name = test_file.relative_to(tree / "tests").as_posix()
    digest = hashlib.sha256(test_file.read_bytes()).hexdigest()
    kept = cache / f"{name.replace('/', '-')}.json"
    if kept.exists():
        known = json.loads(kept.read_text())
        if known["digest"] == digest:
            return known

    def work() -> int:
        recorder = Recorder(str(tree / "src" / "undiffuse") + "/")
        sys.settrace(recorder.trace)
        threading.settrace(recorder.trace)
        code = pytest.main([str(test_file), "-p", "no:cacheprovider", "-p", "no:xdist"], plugins=[recorder])
        sys.settrace(None)
        tests = {key: value for key, value in recorder.tests.items() if key not in recorder.failed}
        about = {"digest": digest, "shared": sorted(recorder.shared), "tests": tests, "failed": recorder.failed}
        kept.write_text(json.dumps(about))
        return int(code)

    began = time.monotonic()
    code = in_fork(work, tree, cache / f"{name.replace('/', '-')}.log", SECONDS_A_FILE)
    if not kept.exists():
        kept.write_text(json.dumps({"digest": digest, "shared": [], "tests": {}, "failed": [f"all: exit code {code}"]}))
    known = json.loads(kept.read_text())
    failed = f", without {len(known['failed'])} that failed or were skipped" if known["failed"] else ""
    print(f"{name}: {len(known['tests'])} tests in {time.monotonic() - began:.0f} s{failed}", flush=True)
    return known


@dataclass(frozen=True)
class Test:
    """A test that passes."""

    node: str
    """As pytest names it: file::name."""
    seconds: float


class Reach:
    """Which tests run a line. Files of tests are recorded when they are first needed."""

    def __init__(self, tree: Path, cache: Path):
        cache.mkdir(parents=True, exist_ok=True)
        self.tree, self.cache = tree, cache
        self.recorded: dict[Path, dict[tuple[str, int], list[Test]]] = {}

    def files(self, path: str) -> tuple[list[Path], list[Path], list[Path]]:
        """In the folder of a module's area the test files that mirror or import it, the others there, and those
        that run it through a command."""
        area, _, module = path.removesuffix(".py").rpartition("/")
        stem, tests = module.rpartition("/")[2], self.tree / "tests"
        imports = re.compile(rf"undiffuse\.{area.replace('/', '.')}(\.{stem}\b| import [^\n]*\b{stem}\b)")
        in_area = sorted((tests / path.partition("/")[0]).rglob("test_*.py"))
        first = [file for file in in_area if file.name == f"test_{stem}.py" or imports.search(file.read_text())]
        named = THROUGH_COMMANDS.get(path.partition("/")[0], ())
        elsewhere = [tests / name for name in named if (tests / name).exists()]
        return first, [file for file in in_area if file not in first], elsewhere

    def tests(self, files: list[Path], path: str, line: int | None, seconds: float) -> list[Test]:
        """The tests of these files that run a line, or with None any of the module, the quickest first.

        Only so many as fit into so many seconds.
        """
        found: dict[str, Test] = {}
        for file in files:
            if file not in self.recorded:
                self.recorded[file] = _by_line(record(file, self.tree, self.cache))
            for place, tests in self.recorded[file].items():
                if place[0] == path and line in (None, place[1]):
                    found |= {test.node: test for test in tests}
        mirror = f"/test_{path.rpartition('/')[2]}"
        kept, spent = [], 0.0
        for test in sorted(found.values(), key=lambda test: (mirror not in test.node, test.seconds)):
            if test.seconds <= DEAREST and (not kept or spent + test.seconds <= seconds):
                kept.append(test)
                spent += test.seconds
        return kept


def _by_line(known: dict[str, Any]) -> dict[tuple[str, int], list[Test]]:
    found: dict[tuple[str, int], list[Test]] = {}
    for node, about in known["tests"].items():
        for path, line in {tuple(place) for place in [*known["shared"], *about["lines"]]}:
            found.setdefault((path, line), []).append(Test(node, about["seconds"]))
    return found
