"""From the command to the first training step, on images that are decoded already; and what the loader costs.

python benchmarks/startup.py
python benchmarks/startup.py --many 10000 100000 1000000    # memory and time against the number of images
"""

import os
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

MANY = """
import os, resource, time
import numpy as np
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.open import open_source
from undiffuse.data.store import DataConfig, store_of
class Made:
    def __len__(self):
        return int(os.environ["IMAGES"])
    def __getitem__(self, i):
        if i >= len(self):
            raise IndexError
        return np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8), i % 10
def told(what, began):
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {time.monotonic() - began:.1f} s, at most {mebibytes:,.0f} MiB until then", flush=True)
began = time.monotonic()
if not os.environ.get("BUILT"):
    store_of(open_source(Made()), DataConfig(data="made"))
    told("decoding", began)
else:
    from pathlib import Path
    from undiffuse.data.store import _load
    folder, = (path for path in Path(os.environ["UNDIFFUSE_CACHE"]).iterdir() if path.is_dir())
    stream = ImageStream(_load(folder), AugmentationConfig(flip=True), 0.1, 0)
    stream.__getitems__(list(range(32)))
    told("opening and the first batch", began)
    for i in range(500):
        stream.__getitems__(list(range(32 * i, 32 * i + 32)))
    told("500 batches more", began)
"""


def main(repeats: int = 3, batch: int = 32, many: tuple[int, ...] = ()) -> None:
    """Measures the time to the first step, and the time that one image takes to load.

    Args:
        repeats: Measurements, of which the median is shown.
        batch: Images that are loaded at once.
        many: Measure the time and the memory of so many made images of 32x32 instead; a million take 3.1 GB of disk.
    """
    if many:
        for images in many:
            _many(images)
        return
    open_store(DataConfig(size=(16, 16)))  # Decodes them, if that was not done before.
    seconds = statistics.median(_seconds_to_first_step() for _ in range(repeats))
    print(f"train --data digits: first step after {seconds:.1f} s (median of {repeats})")
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


def _many(images: int) -> None:
    print(f"{images:,} images")
    with tempfile.TemporaryDirectory() as folder:
        for built in ("", "1"):
            environment = {**os.environ, "UNDIFFUSE_CACHE": folder, "IMAGES": str(images), "BUILT": built}
            subprocess.run([sys.executable, "-c", MANY], env=environment, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    tyro.cli(main)
