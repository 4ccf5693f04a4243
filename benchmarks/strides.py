"""Strides for the bound: bits/dim of held-out digits over the best and the even stride (Watson et al. 2021).

OMP_NUM_THREADS=1 python benchmarks/strides.py --images 40k
"""

import json
from pathlib import Path

import tyro

import undiffuse
from undiffuse.runs.find import is_run

SETTINGS = {
    "diffusion.parametrization": "eps",
    "diffusion.sigma_sampler": "discrete_uniform",
    "diffusion.schedule": "cosine",
    "diffusion.num_timesteps": 1000,
    "sampling.sampler": "ancestral",
    "sampling.guidance": 1,
}


def main(
    images: str = "40k",
    objective: str = "hybrid",
    steps: tuple[int, ...] = (8, 32, 128),
    minutes: float = 2,
    out: Path = Path("runs/strides"),
    json_file: Path = Path("benchmarks/results/strides.json"),
) -> None:
    """Trains a model of digits at 16x16, unless it is there, tunes each number of steps, and prints the table.

    Args:
        images: Training budget, in images seen.
        objective: hybrid or vlb, which learn the variance, or simple.
        steps: Of each stride.
        minutes: For each search.
        out: The run.
        json_file: Where the rows go.
    """
    settings = {**SETTINGS, "diffusion.objective": objective}
    run = (
        out
        if is_run(out)
        else undiffuse.train("digits", size=16, images=images, precision="fp32", out=out, set=settings)
    )
    rows = []
    print("| steps | even stride | best stride | images |\n| --- | --- | --- | --- |")
    for number in steps:
        tuned = undiffuse.tune_sampler(run, sampler="ancestral", steps=number, minutes=minutes)
        found = tuned.schedule
        rows.append({"steps": number, "even": tuned.default_error, "best": tuned.error, "levels": tuned.sigmas})
        rows[-1] |= {"images": found.images_measured, "objective": objective, "images_seen": found.images_seen}
        print(f"| {number} | {tuned.default_error:.3f} | {tuned.error:.3f} | {found.images_measured} |", flush=True)
    json_file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
