"""Explored by several processes, images look as they do to one."""

import json
import os
from pathlib import Path

import pytest
from helpers import forking
from helpers.exploring import messy, smooth
from helpers.making import save

import undiffuse
from undiffuse.cli import main

SHARED = """
import os
import undiffuse
from undiffuse.exploration import duplicates, scan

scan.BATCH_BYTES = 4 * 3 * 16 * 16  # Four images.
duplicates.ROWS, duplicates.MAX_PAIRS = 4, MAX_PAIRS
found = undiffuse.explore("p", size=16, suggest=False, out=f"explored-{os.environ['WORLD_SIZE']}")
print(repr(found))
"""


@pytest.mark.parametrize("max_pairs", [20_000, 30])
def test_the_outcome_is_the_same(max_pairs: int) -> None:
    """With duplicates among more pairs than are kept: which ones are found does not depend on who looks for them."""
    messy(Path("p"))
    for i in range(24):
        save(Path("p") / "twins" / f"{i}.png", smooth(i % 2).point(lambda level, i=i: min(255, level + i // 2)))
    script = SHARED.replace("= 4, MAX_PAIRS", f"= 4, {max_pairs}")
    said = {size: forking.together(size, exec, script, {}) for size in (1, 3)}
    assert said[3] == said[1] * 3, "all processes have the result"
    one, three = (written(Path(f"explored-{size}")) for size in (1, 3))
    assert one["statistics.json"] == three["statistics.json"]
    assert sorted(one) == sorted(three)
    assert {name for name in one if one[name] != three[name]} == set()
    duplicates = json.loads(one["statistics.json"])["duplicates"]
    assert duplicates["complete"] == (max_pairs == 20_000)


def test_one_process_writes_and_prints() -> None:
    messy(Path("p"))
    first, second = forking.together(2, main, ["explore", "--data", "p", "--out", "explored"])
    assert first.count("Open ") == first.count("images ") == 1
    assert "first run" in first
    assert second == ""
    assert (Path("explored") / "report.html").exists()


def written(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
