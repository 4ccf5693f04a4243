"""Mutations are of one line, compile, and come by seed."""

from pathlib import Path

import pytest

from mutants.mutations import changes, chosen, mutations_of
from mutants.table import report


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("y = a < b", {"y = a <= b"}),
        ("y = a - b", {"y = a + b"}),
        ("y = a and not b", {"y = a or not b", "y = a and b"}),
        ("y = min(a, b)", {"y = max(a, b)"}),
        ("y = 3 if a else b", {"y = 6 if a else b", "y = 0 if a else b", "y = 3 if not (a) else b"}),
        ("f(a, b=c)", {"f(a)", "pass"}),
        ("a += b", {"a -= b", "a = b"}),
        ("y = x.mean().sqrt()", {"y = x.mean()", "y = x.sqrt()"}),
        ("y = [a for a in b if a]", {"y = [a for a in b if not (a)]", "y = [a for a in b if True]"}),
        ("y: int | None = f'{3 + a}'", set()),  # Annotations and messages are left alone.
        ("assert a < b", set()),
    ],
)
def test_every_kind_of_mistake(line: str, expected: set[str]) -> None:
    found = [each for each in mutations_of(line + "\n", "a/b.py") if changes(each, line + "\n")]
    assert {" ".join(each.lines(line + "\n")[1].split()) for each in found} == expected


def test_the_seed_chooses_at_most_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "area").mkdir()
    (tmp_path / "area" / "module.py").write_text("".join(f"a{i} = x < {i} + y\n" for i in range(1, 40)))
    first, again, other = (chosen(tmp_path, ("area",), 20, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len({each.line for each in first}) == len(first) == 20


def test_equivalent_survivors_are_counted_apart() -> None:
    def result(outcome: str, after: str) -> dict:
        return {
            "path": "a/b.py",
            "area": "a",
            "line": 1,
            "before": "x",
            "after": after,
            "kind": "",
            "diff": "+" + after,
        } | {"outcome": outcome}

    tried = [result("caught", "1"), result("timed out", "2"), result("survived", "3"), result("survived", "4")]
    table = report(tried, {("a/b.py", "x", "4"): "nothing reads it"})
    assert table.splitlines()[2].split() == ["a", "4", "1", "1", "1", "1", "66.7%"]
    assert "equivalent: a/b.py:1: 4\n  nothing reads it" in table
    assert "survived: src/undiffuse/a/b.py:1 ()\n+3" in table
