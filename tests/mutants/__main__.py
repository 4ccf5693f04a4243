"""Mutation testing: small mistakes in a copy of the source, one at a time, and the tests that run the line.

    make mutants                                      # 300 mutations
    make mutants ARGUMENTS="--only training/ --sample 100"

Results are kept in .mutants/: a run that was stopped goes on, and which tests run which lines is recorded once a test
file. A mutation that survives because it changes nothing that a test could see is listed in equivalent.json.
"""

import argparse
import ast
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mutants.forks import BROKEN, in_fork, preload
from mutants.mutations import Mutation, chosen
from mutants.reach import Reach, Test
from mutants.table import equivalents, report

ROOT = Path(__file__).resolve().parents[2]
AREAS = ("diffusion", "networks", "sampling", "training", "evaluation", "metrics", "data", "runs", "interop")
COPIED = ("src", "tests", "docs", "notebooks", "README.md", "pyproject.toml", "CHANGELOG.md")
SECONDS_OF_TESTS = 60.0
"""Of the tests that reach a line, at most so much is run."""


class FirstFailure:
    """A pytest plugin that remembers which test failed first."""

    def __init__(self) -> None:
        self.node = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.node:
            self.node = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.node:
            self.node = f"{report.nodeid} (collecting)"


def copy_tree(target: Path) -> Path:
    """A copy of what the tests need, with the files as they are now."""
    shutil.rmtree(target, ignore_errors=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("*.egg-info"))
        elif source.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def in_function(source: str, line: int) -> bool:
    """Whether a line runs when a function is called, rather than at import."""
    return any(
        isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= (node.end_lineno or 0)
        for node in ast.walk(ast.parse(source))
    )


@dataclass
class Trial:
    """Runs tests on the copy with a mutation, and on the copy as it is to know that they pass there."""

    tree: Path
    work: Path
    importers: dict[str, set[str]]
    sound: dict[tuple[str, str], bool] = field(default_factory=dict)
    """By path and test: whether the test passes in a fork that loads the module again."""

    def outcome(self, mutation: Mutation, tests: list[Test]) -> dict[str, Any]:
        """Caught and by which test, survived, or timed out. Tests that fail without the mutation do not count."""
        while tests:
            found = self.run(mutation, mutation.apply, tests)
            by = found["by"]
            if found["outcome"] != "caught" or by not in [test.node for test in tests]:
                return found
            if (mutation.path, by) not in self.sound:
                unchanged = self.run(mutation, lambda source: source, [test for test in tests if test.node == by])
                self.sound[mutation.path, by] = unchanged["outcome"] == "survived"
            if self.sound[mutation.path, by]:
                return found
            print(f"{by} fails without a mutation too: left out", flush=True)
            tests = [test for test in tests if test.node != by]
        return {"outcome": "not reached", "by": "", "seconds": 0.0}

    def run(self, mutation: Mutation, change: Callable[[str], str], tests: list[Test]) -> dict[str, Any]:
        """What the tests say of a changed source."""
        file = self.tree / "src" / "undiffuse" / mutation.path
        source, kept = file.read_text(encoding="utf-8"), file.stat()
        first_failure, log = self.work / "first-failure", self.work / "last.log"
        first_failure.unlink(missing_ok=True)

        def work() -> int:
            sys.dont_write_bytecode = True
            failure = FirstFailure()
            nodes = [test.node for test in tests]
            code = pytest.main([*nodes, "-x", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist"], [failure])
            first_failure.write_text(failure.node)
            return int(code)

        began = time.monotonic()
        try:
            file.write_text(change(source), encoding="utf-8")
            # No compiled file is taken for it.
            os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns + 10_000_000_000))
            limit = 120 + 10 * sum(test.seconds for test in tests)
            code = in_fork(work, self.tree, log, limit, self.importers[mutation.module])
        finally:
            file.write_text(source, encoding="utf-8")
            os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
        if code == BROKEN:
            raise RuntimeError(f"The harness failed at {mutation.key}:\n{log.read_text()}")
        by = first_failure.read_text() if first_failure.exists() else f"exit code {code}"
        outcome = "timed out" if code is None else "survived" if code == 0 else "caught"
        return {"outcome": outcome, "by": by, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many mutations")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--only", default="", help="mutations whose path:line begins so, such as training/loop.py")
    parser.add_argument("--patches", type=Path, help="a JSON list of {path, before, after} to try instead")
    parser.add_argument("--again", action="store_true", help="try those that survived again")
    parser.add_argument("--out", type=Path, default=ROOT / ".mutants", help="the folder of results and records")
    options = parser.parse_args()
    work: Path = options.out
    work.mkdir(parents=True, exist_ok=True)
    tree = copy_tree(work / "tree")
    package = tree / "src" / "undiffuse"
    if options.patches:
        sample = [_patch(package, each) for each in json.loads(options.patches.read_text())]
        results = work / f"results-{options.patches.stem}.json"
    else:
        sample = chosen(package, AREAS, options.sample, options.seed)
        results = work / f"results-{options.seed}.json"
    sample = [each for each in sample if f"{each.path}:{each.line}".startswith(options.only)]
    known: dict[str, dict[str, Any]] = json.loads(results.read_text()) if results.exists() else {}
    importers = preload(tree)
    reach, trial = Reach(tree, work / "reach"), Trial(tree, work, importers)
    for number, mutation in enumerate(sample, 1):
        before = known.get(mutation.key)
        if before and not (options.again and before["outcome"] != "caught"):
            continue
        source = (package / mutation.path).read_text(encoding="utf-8")
        # What is outside functions runs at import only: for that, every test that runs anything of the module counts.
        line = mutation.line if in_function(source, mutation.line) else None
        outcome: dict[str, Any] = {"outcome": "not reached", "by": "", "seconds": 0.0, "tests": 0}
        for files in reach.files(mutation.path):
            if outcome["outcome"] not in ("not reached", "survived"):
                break  # What takes long to record is recorded only for what the tests at hand do not notice.
            if tests := reach.tests(files, mutation.path, line, SECONDS_OF_TESTS):
                outcome = trial.outcome(mutation, tests) | {"tests": outcome["tests"] + len(tests)}
        old, new = mutation.lines(source)
        about = {"before": old, "after": new}
        known[mutation.key] = {
            **asdict(mutation),
            "area": mutation.area,
            **outcome,
            **about,
            "diff": mutation.diff(source),
        }
        results.write_text(json.dumps(known, indent=1))
        place = f"{mutation.path}:{mutation.line}"
        print(f"{number}/{len(sample)} {outcome['outcome']} in {outcome['seconds']} s: {place}  {new}", flush=True)
    print(report([known[each.key] for each in sample], equivalents()))


def _patch(package: Path, patch: dict[str, str]) -> Mutation:
    """A mutation given by hand: `before` must stand once in the file, on one line."""
    lines = (package / patch["path"]).read_text(encoding="utf-8").splitlines()
    places = [(number, line) for number, line in enumerate(lines, 1) if patch["before"] in line]
    if len(places) != 1:
        raise SystemExit(f"{patch['before']!r} stands on {len(places)} lines of {patch['path']}")
    number, line = places[0]
    start = len(line[: line.index(patch["before"])].encode())
    return Mutation(patch["path"], number, start, start + len(patch["before"].encode()), patch["after"], "by hand")


if __name__ == "__main__":
    main()
