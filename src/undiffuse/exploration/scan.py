"""One pass over all pixels, in batches, that gathers what colors and duplicates are computed from."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64

from undiffuse.data.store import Store
from undiffuse.exploration import fingerprints
from undiffuse.utils.terminal import Meter
from undiffuse.utils.world import World

BATCH_BYTES = 8 * 2**20
"""Bytes of pixels read at once; processing them takes about ten times as much memory."""


@dataclass(frozen=True)
class Scan:
    """What a pass over all pixels gathers."""

    histograms: Int[np.ndarray, "c 256"]
    """How often each channel has each of the 256 levels."""
    mean_image: Float[np.ndarray, "h w c"]
    """The mean over all images, from 0 to 255."""
    digests: UInt64[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    thumbnails: Float[np.ndarray, "n 64"]


def scan(store: Store, world: World | None = None) -> Scan:
    """Reads the whole store. Keeps about 270 bytes per image in memory, whatever the size of the images.

    The processes of `world` take the batches in turns, and all get the same result as one alone: pixels are summed as
    whole numbers, which float64 holds exactly.
    """
    world = world or World.alone()
    n, (channels, height, width) = len(store), store.shape
    histograms, total = np.zeros((channels, 256), np.int64), np.zeros((height, width, channels))
    digests, hashes = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    thumbnails = np.zeros((n, fingerprints.THUMBNAIL_SIDE**2), np.float32)
    batch = max(1, BATCH_BYTES // (channels * height * width))
    with Meter("measuring pixels", n) as meter:
        for start in range(0, n, batch)[world.rank :: world.size]:
            chunk = slice(start, min(start + batch, n))
            pixels = store.read(range(chunk.start, chunk.stop))
            for channel in range(channels):
                histograms[channel] += np.bincount(pixels[..., channel].reshape(-1), minlength=256)
            total += pixels.sum(axis=0, dtype=np.float64)
            digests[chunk] = [fingerprints.digest(image) for image in pixels]
            gray = fingerprints.to_gray(pixels)
            hashes[chunk] = fingerprints.difference_hashes(gray)
            thumbnails[chunk] = fingerprints.standardized_thumbnails(gray).numpy()
            meter.reach(chunk.stop, f"{chunk.stop:,}/{n:,}")
    for array in (histograms, total, digests.view(np.int64), hashes.view(np.int64), thumbnails):
        world.add_up(torch.from_numpy(array))  # Zero where another process has read.
    return Scan(histograms, total / n, digests, hashes, thumbnails)
