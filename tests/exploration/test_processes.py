"""Explored by several processes, images look as they do to one."""

import json
import pickle
from pathlib import Path

from helpers import forking
from helpers.exploring import messy, smooth
from helpers.making import save

EXPLORED = """
import json, os, pickle
from pathlib import Path
import undiffuse
from undiffuse.exploration import duplicates, scan

scan.BATCH_BYTES = 4 * 3 * 16 * 16  # Four images.
duplicates.ROWS = 4
for duplicates.MAX_PAIRS in (20_000, 30):
    found = undiffuse.explore("p", size=16, suggest=False)
    print(json.dumps(found.to_dict()))
Path(f"data-{os.environ['WORLD_SIZE']}-{os.environ['RANK']}").write_bytes(pickle.dumps(found.figure_data))
"""

WRITTEN = """
import os
from pathlib import Path
from undiffuse.api import first_run
from undiffuse.cli import main
from undiffuse.exploration import explore
from undiffuse.training import cost

first_run.MEASURING_SECONDS = 0
cost.measure_cost = lambda *arguments: cost.Cost(1, 1, 1, 0.01)
explore.write_report = lambda folder, statistics, plots: (folder / os.environ["RANK"]).touch()
main(["explore", "--data", "p", "--size", "16", "--out", "explored"])
"""


def test_the_outcome_is_the_same() -> None:
    """With more pairs of duplicates than are kept, too: which ones are found does not depend on who looks for them."""
    messy(Path("p"))
    for i in range(24):
        save(Path("p") / "twins" / f"{i}.png", smooth(i % 2).point(lambda level, i=i: min(255, level + i // 2)))
    one, several = forking.together(1, exec, EXPLORED, {}), forking.together(3, exec, EXPLORED, {})
    assert several == one * 3, "all processes have the result"
    complete = [json.loads(line)["duplicates"]["complete"] for line in one[0].splitlines()]
    assert complete == [True, False]
    expected, *found = (pickle.loads(Path(name).read_bytes()) for name in ("data-1-0", "data-3-0", "data-3-2"))
    for each in found:
        assert (each.mean_image == expected.mean_image).all()
        assert (each.samples.after == expected.samples.after).all()
        assert [pair.caption for pair in each.surest_pairs] == [pair.caption for pair in expected.surest_pairs]


def test_one_process_writes_and_prints() -> None:
    messy(Path("p"))
    first, second = forking.together(2, exec, WRITTEN, {})
    assert [path.name for path in Path("explored").iterdir()] == ["0"]
    assert first.count("Open ") == first.count("duplicates ") == first.count("undiffuse train") == 1
    assert second == ""
