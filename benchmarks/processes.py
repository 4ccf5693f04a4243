"""What changes with the number of processes: losses, samples and metrics under torchrun against those of one process.

    pip install -e '.[offline]'
    python benchmarks/processes.py                        # 1, 2 and 4 processes; about ten minutes on two cores
    python benchmarks/processes.py --processes 1 8        # one process and eight GPUs

Differences only, no times. The first number of processes is what the others are compared with; all of them compute with
one thread each. With --all-threads the last row is one process with all of them. The result is written to
benchmarks/results/processes.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "processes.json"

TRAIN = ("train", "--data", "digits", "--batch", "64", "--images", "1280", "--precision", "fp32", "--out", "run")
EACH_STEP = ("--set", "training.log_batches=1", "network.dropout=0")  # Each process draws dropout's masks for itself.
SAMPLE = ("sample", "digits", "--count", "96", "--steps", "18", "--batch", "16", "--out", "whole-batches")
FEW = ("sample", "digits", "--count", "12", "--steps", "18", "--batch", "16", "--out", "shared-batch")


@dataclass(frozen=True)
class Outcome:
    """What one number of processes came to."""

    losses: dict[int, float]
    """By images seen."""
    images: dict[str, np.ndarray]
    metrics: dict[str, float]


def outcome(processes: int, threads: int, features: Sequence[str], count: int) -> Outcome:
    """Trains, samples and evaluates in a folder of its own, with an empty cache."""
    folder = Path(tempfile.mkdtemp())
    environment = {**os.environ, "UNDIFFUSE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": str(threads)}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]

    def run(*words: str) -> None:
        launcher = torchrun if processes > 1 else []
        subprocess.run([sys.executable, *launcher, "-m", "undiffuse", *words], check=True, cwd=folder, env=environment)

    run(*TRAIN, *EACH_STEP)
    run(*SAMPLE)
    run(*FEW)
    metrics = {}
    for name in features:
        run(
            *("evaluate", "digits", "--features", name, "--out", name, "--steps", "9", "--batch", "16"),
            *("--count", str(count), "--real-count", str(count)),
        )
        written = json.loads((folder / name / "metrics.json").read_text())
        metrics |= {f"{value['metric']}, {name}": value["value"] for value in written["metrics"]}
    lines = map(json.loads, (folder / "run" / "log.jsonl").read_text().splitlines())
    pictures = sorted(path for way in (SAMPLE[-1], FEW[-1]) for path in (folder / way).glob("0*.png"))
    return Outcome(
        losses={line["images"]: line["loss"] for line in lines},
        images={f"{path.parent.name}/{path.name}": np.asarray(Image.open(path)).astype(int) for path in pictures},
        metrics=metrics,
    )


def differences(found: Outcome, expected: Outcome) -> dict[str, Any]:
    """The largest differences of each kind."""
    assert list(found.losses) == list(expected.losses)
    assert found.metrics.keys() == expected.metrics.keys()
    pixels = {
        way: max(int(abs(found.images[name] - expected.images[name]).max()) for name in expected.images if way in name)
        for way in (SAMPLE[-1], FEW[-1])
    }
    return {
        "steps": len(expected.losses),
        "loss": max(abs(found.losses[images] - expected.losses[images]) for images in expected.losses),
        "pixel of 255, each process with whole batches": pixels[SAMPLE[-1]],
        "pixel of 255, one batch shared": pixels[FEW[-1]],
        "metric, relative": {
            name: abs(found.metrics[name] - value) / max(abs(value), 1e-12) for name, value in expected.metrics.items()
        },
    }


def main(
    processes: tuple[int, ...] = (1, 2, 4),
    features: tuple[str, ...] = ("pixels", "efficientnet-lite0"),
    count: int = 512,
    all_threads: bool = False,
) -> None:
    """Measures, and writes the JSON file.

    Args:
        processes: Numbers of processes; the others are compared with the first.
        features: Feature networks of the metrics.
        count: Samples, and as many real images.
        all_threads: Whether one process with all threads is compared, too.
    """
    expected = outcome(processes[0], 1, features, count)
    found = {f"{size} processes": outcome(size, 1, features, count) for size in processes[1:]}
    if all_threads:
        threads = torch.get_num_threads()
        found[f"1 process with {threads} threads"] = outcome(1, threads, features, count)
    result = {
        "compared with": f"{processes[0]} processes",
        "torch": torch.__version__,
        "images": count,
        **{name: differences(each, expected) for name, each in found.items()},
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
