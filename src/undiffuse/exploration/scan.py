"""Every pixel read once, in batches: what the colors are, and what finding duplicates needs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64

from undiffuse.data.store import Store
from undiffuse.exploration import fingerprints
from undiffuse.utils.terminal import Meter

BATCH_BYTES = 8 * 2**20
"""Pixels that are in memory at once; working on them takes some ten times as much."""


@dataclass(frozen=True)
class Scan:
    """What a pass over all pixels gathers."""

    histograms: Int[np.ndarray, "c 256"]
    """How often each channel has each of the 256 levels."""
    mean_image: Float[np.ndarray, "h w c"]
    """The mean over all images, 0 to 255."""
    digests: UInt64[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    thumbnails: Float[np.ndarray, "n 64"]


def scan(store: Store) -> Scan:
    """Reads the whole store. What it keeps in memory is some 270 bytes an image, whatever its size."""
    n, (channels, height, width) = len(store), store.shape
    histograms, total = np.zeros((channels, 256), np.int64), np.zeros((height, width, channels))
    digests, hashes = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    thumbnails = np.zeros((n, fingerprints.SIDE**2), np.float32)
    batch = max(1, BATCH_BYTES // (channels * height * width))
    with Meter("measuring pixels", n) as meter:
        for start in range(0, n, batch):
            part = slice(start, min(start + batch, n))
            pixels = store.read(range(part.start, part.stop))
            for channel in range(channels):
                histograms[channel] += np.bincount(pixels[..., channel].reshape(-1), minlength=256)
            total += pixels.sum(axis=0, dtype=np.float64)
            digests[part] = [fingerprints.digest(image) for image in pixels]
            gray = fingerprints.gray(pixels)
            hashes[part] = fingerprints.difference_hashes(gray)
            thumbnails[part] = fingerprints.standardized_thumbnails(gray).numpy()
            meter.reach(part.stop, f"{part.stop:,}/{n:,}")
    return Scan(histograms, total / n, digests, hashes, thumbnails)
