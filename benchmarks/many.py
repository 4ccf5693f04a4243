"""What a million images cost: time and memory to decode them, and to start training on them again.

python benchmarks/many.py --images 10000 100000 1000000

Each step runs in a process of its own. A million images take 14 GB in $TMPDIR; the archive has them at 8x8, so that
making them takes less time than decoding them at 64x64.
"""

import io
import multiprocessing
import os
import tarfile
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.decoding import decode
from undiffuse.data.store import DataConfig, Store, open_store

SIZE = (64, 64)
BATCH = 64
BATCHES = 200


def made(number: int) -> bytes:
    """The image with this number, as a .ppm file."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    return b"P6 8 8 255\n" + pixels.tobytes()


class Unsharded(Store):
    """The same images without any shards: each is made again."""

    def read(self, indices) -> np.ndarray:
        return np.stack([decode(Image.open(io.BytesIO(made(int(i)))), self.size, "crop", 3) for i in indices])


def write(archive: Path, images: int) -> None:
    """A .tar of images in ten classes."""
    began = time.monotonic()
    with tarfile.open(archive, "w") as tar:
        for number in range(images):
            content = made(number)
            header = tarfile.TarInfo(f"{number % 10}/{number:07d}.ppm")
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
            tar.members = []
    print(f"{images:,} images, made in {time.monotonic() - began:.0f} s", flush=True)


def start(what: str, archive: Path) -> None:
    """Opens the images, decoded or not, and reads batches as training does."""
    own, peak = _memory()
    began = time.monotonic()
    store = open_store(DataConfig(str(archive), size=SIZE, channels=3))
    stream = ImageStream(store, AugmentationConfig(flip=True), 0.1, seed=0, held_out=None)
    stream.__getitems__(list(range(BATCH)))
    print(f"  {what}: {time.monotonic() - began:.2f} s until the first batch", end="")
    if what == "again":
        began = time.monotonic()
        for i in range(BATCHES):
            stream.__getitems__(list(range(BATCH * i, BATCH * (i + 1))))
        print(f", {1e6 * (time.monotonic() - began) / BATCH / BATCHES:.0f} us an image after it", end="")
        own, peak = (after - before for after, before in zip(_memory(), (own, peak), strict=True))
        print(f"; {own:+.0f} MiB of memory, {peak:+.0f} at most with the files' pages", end="")
        _compare(stream, store)
    print(f"; {len(store.starts)} shards", flush=True)


def _compare(stream: ImageStream, store: Store) -> None:
    """Image n of training depends on the seed and n alone, at the start, across an epoch's end and a million on."""
    unsharded = Unsharded(**{field.name: getattr(store, field.name) for field in fields(Store)})
    other = ImageStream(unsharded, AugmentationConfig(flip=True), 0.1, seed=0, held_out=None)
    for first in (0, len(stream.training) - BATCH // 2, 1_000_000):
        numbers = list(range(first, first + BATCH))
        pairs = zip(stream.__getitems__(numbers), other.__getitems__(numbers), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    print("; the same as without shards", end="")


def _memory() -> tuple[float, float]:
    """MiB that are this process's own, and the most that it ever had with pages of files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, peak = (int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "VmHWM"))
    return own, peak


def main(images: tuple[int, ...] = (10_000, 100_000)) -> None:
    """Measures so many images of 64x64, and deletes them."""
    spawned = multiprocessing.get_context("spawn")
    for count in images:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "made.tar"
            write(archive, count)
            os.environ["UNDIFFUSE_CACHE"] = f"{folder}/cache"
            for what in ("decoding", "again"):
                process = spawned.Process(target=start, args=(what, archive))
                process.start()
                process.join()
                assert process.exitcode == 0


if __name__ == "__main__":
    tyro.cli(main)
