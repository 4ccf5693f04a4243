"""From the command to the first training step, on images that are decoded already, and to an image; and what the loader
costs.

python benchmarks/startup.py
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import tyro
from measuring import training_speed

from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.store import DataConfig, open_store
from undiffuse.presets import configure

FIRST_STEP = """
import os, time
from undiffuse.training import session
steps = session.training_steps
def told(*arguments, **named):
    for report in steps(*arguments, **named):
        print("first step after", time.time() - float(os.environ["BEGAN"]), flush=True)
        os._exit(0)
session.training_steps = told
from undiffuse.cli import main
main(["train", "--data", "digits", "--out", os.environ["OUT"]])
"""


def main(repeats: int = 3, batch: int = 32) -> None:
    """Measures the time to the first step, and the time that one image takes to load.

    Args:
        repeats: Measurements, of which the median is shown.
        batch: Images that are loaded at once.
    """
    open_store(DataConfig(size=(16, 16)))  # Decodes them, if that was not done before.
    seconds = statistics.median(_seconds_to_first_step() for _ in range(repeats))
    print(f"train --data digits: first step after {seconds:.1f} s (median of {repeats})")
    seconds, spent = map(statistics.median, zip(*(_seconds_to_image() for _ in range(repeats)), strict=True))
    print(f"sample digits --count 1: {seconds:.1f} s, {spent:.1f} s of CPU (medians of {repeats})")
    data = DataConfig(size=(32, 32), channels=3)
    store = open_store(data)
    step = 1 / training_speed(configure("small", store, data, seed=0))
    stream = ImageStream(store, AugmentationConfig(flip=True), 0.1, 0)
    stream.__getitems__(list(range(batch)))
    began, batches = time.process_time(), 50
    for i in range(1, batches + 1):
        stream.__getitems__(list(range(i * batch, (i + 1) * batch)))
    each = (time.process_time() - began) / (batches * batch)
    print(f"loader: {1e6 * each:.0f} us of one core for an image of 32x32, flipped or not")
    print(f"small: {1e3 * step:.1f} ms of all cores for a training step's image; the loader is {each / step:.1%} of it")


def _seconds_to_first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "BEGAN": str(time.time()), "OUT": f"{folder}/run"}
        command = [sys.executable, "-c", FIRST_STEP]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(output.rsplit("first step after", 1)[1])


def _seconds_to_image() -> tuple[float, float]:
    """By the clock, and of CPU time."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "undiffuse", "sample", "digits", "--count", "1", "--out", f"{folder}/one"]
        subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    tyro.cli(main)
