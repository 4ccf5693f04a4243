"""Few steps with tuned noise levels against the usual ones: distance to the real images, over disjoint ranges of seeds.

    undiffuse tune-sampler flowers --steps 6
    OMP_NUM_THREADS=1 python benchmarks/few_steps.py flowers --steps 6 --count 5000 --seeds 3
    python benchmarks/few_steps.py flowers --table

Every row is kept in the JSON file as soon as it is measured, and rows that are there are not measured again, so that an
interrupted benchmark goes on. Rows of the same range have the same seeds.
"""

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

import undiffuse
from undiffuse.sampling.model import Model
from undiffuse.utils.files import write_atomically


def main(
    run: str,
    /,
    steps: tuple[int, ...] = (4, 6, 8),
    samplers: tuple[str, ...] = ("ipndm",),
    sigmas: tuple[str, ...] = ("karras", "tuned"),
    count: int = 5000,
    seeds: int = 3,
    features: str = "efficientnet-lite0",
    guidance: float = 1.0,
    json_file: Path = Path("benchmarks/results/few_steps.json"),
    table: bool = False,
) -> None:
    """Measures every sampler, number of steps, schedule and range of seeds.

    Args:
        run: A run whose samplers were tuned for these steps.
        steps: Of the samplers.
        samplers: Each with every number of steps.
        sigmas: The noise schedules: karras, log_snr, tuned.
        count: Samples in each row.
        seeds: How many ranges of `count` seeds.
        features: Of the distance.
        guidance: 1 follows the classes as trained.
        json_file: Where the rows are kept.
        table: Only prints the table of the rows that are there.
    """
    rows: list[dict[str, Any]] = json.loads(json_file.read_text()) if json_file.exists() else []
    if not table:
        model = undiffuse.load(run)
        for start in range(0, seeds * count, count):  # Range by range: the first ones are soon comparable.
            for number in steps:
                for sampler in samplers:
                    for schedule in sigmas:
                        row = {"run": run, "images_seen": model.origin[1].images, "sampler": sampler, "steps": number}
                        row |= {"sigmas": schedule, "guidance": guidance, "count": count, "seed": start}
                        row |= {"features": features}
                        if any(row.items() <= each.items() for each in rows):
                            continue
                        rows.append(row | _measured(model, row))
                        write_atomically(json_file, json.dumps(rows, indent=1) + "\n")
                        print(json.dumps(rows[-1]), flush=True)
    _print(rows)


def _measured(model: Model, row: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {name: row[name] for name in ("sampler", "steps", "count", "seed", "features")}
    options |= {"guidance": row["guidance"]} if model.class_names else {}
    with TemporaryDirectory() as folder:
        found = undiffuse.evaluate(model, set={"sigmas": row["sigmas"]}, out=folder, **options)
    distance = next(value for value in found.measurements[0].values if value.metric.startswith(("FD", "FID")))
    return {"nfe": found.made_by["nfe"], "levels": found.made_by["sigmas"], distance.metric: distance.value}


def _print(rows: list[dict[str, Any]]) -> None:
    """A line for each way to sample: its distance over the ranges of seeds, mean and range."""
    ways: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        way = tuple(row[name] for name in ("run", "sampler", "nfe", "sigmas", "guidance", "count"))
        ways.setdefault(way, []).append(next(value for name, value in row.items() if name.startswith(("FD", "FID"))))
    print("| run | sampler | NFE | noise levels | guidance | samples | distance | smallest to largest | ranges |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for way, values in sorted(ways.items(), key=str):
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"| {' | '.join(map(str, way))} | {statistics.mean(values):.1f} | {spread} | {len(values)} |")


if __name__ == "__main__":
    tyro.cli(main)
