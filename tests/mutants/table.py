"""What mutation testing found, as a table and a list of the survivors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EQUIVALENT = Path(__file__).with_name("equivalent.json")
"""A list of {path, before, after, reason}: lines by their text, since their numbers change."""


def equivalents(file: Path = EQUIVALENT) -> dict[tuple[str, str, str], str]:
    """Why mutations change nothing that a test could see, by path and the line before and after."""
    listed = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return {(each["path"], each["before"], each["after"]): each["reason"] for each in listed}


def report(results: Sequence[dict[str, Any]], reasons: dict[tuple[str, str, str], str]) -> str:
    """The table by area, the survivors with their diffs, and those that are equivalent with the reasons."""
    explained = {id(each): reasons.get((each["path"], each["before"], each["after"])) for each in results}
    lines = [
        "",
        f"{'area':12} {'tried':>5} {'caught':>6} {'timed out':>9} {'equivalent':>10} {'survived':>8} {'score':>6}",
    ]
    areas = sorted({each["area"] for each in results})
    for area in [*areas, "all"]:
        of_area = [each for each in results if area in ("all", each["area"])]
        caught = sum(each["outcome"] == "caught" for each in of_area)
        late = sum(each["outcome"] == "timed out" for each in of_area)
        survived = [each for each in of_area if each["outcome"] in ("survived", "not reached")]
        same = sum(explained[id(each)] is not None for each in survived)
        score = (caught + late) / max(1, len(of_area) - same)
        lines.append(f"{area:12} {len(of_area):5} {caught:6} {late:9} {same:10} {len(survived) - same:8} {score:6.1%}")
    for each in results:
        if each["outcome"] in ("survived", "not reached") and explained[id(each)] is None:
            lines.append(
                f"\n{each['outcome']}: src/undiffuse/{each['path']}:{each['line']} ({each['kind']})\n{each['diff']}"
            )
    for each in results:
        if each["outcome"] == "survived" and explained[id(each)] is not None:
            lines.append(f"\nequivalent: {each['path']}:{each['line']}: {each['after']}\n  {explained[id(each)]}")
    return "\n".join(lines)
