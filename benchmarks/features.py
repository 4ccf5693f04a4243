"""Inception features: this program's against torch-fidelity's own, side by side, and the memory that many take.

python benchmarks/features.py --weights FILE
python benchmarks/features.py --weights FILE --stream 50000
"""

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from undiffuse.features.cache import Share, features_of
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import Extracted, load_inception
from undiffuse.metrics.frechet import frechet_distance, gaussian
from undiffuse.utils.device import choose_device, synchronize

STREAM_BATCH = 64


def main(weights: str, batch: int = 32, rounds: int = 7, stream: int = 0) -> None:
    """Alternate the two over batches of 32x32 images; the median of the ratios stands against a busy machine.

    Args:
        weights: In torch-fidelity's format; any will do.
        batch: Images at once.
        rounds: Batches for each.
        stream: Instead: put twice so many images through all but the network, and say what memory that took.
    """
    device = choose_device()
    ours = load_inception(Path(weights), device, given=True)
    if stream:
        _stream(stream, ours)
        return
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights
    ).to(device)
    pixels = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, its = ours.extract(pixels).features, theirs(pixels.to(device))[0].cpu()
        error = ((mine - its).norm(dim=1) / its.norm(dim=1)).max().item()
        ratios, speeds = [], []
        for _ in range(rounds):
            its_seconds = _seconds(lambda: theirs(pixels.to(device)), device)
            my_seconds = _seconds(lambda: ours.extract(pixels), device)
            ratios.append(its_seconds / my_seconds)
            speeds.append(batch / my_seconds)
    print(f"ours {statistics.median(speeds):.1f} images/s, {statistics.median(ratios):.2f} times torch-fidelity's")
    print(f"ratios {' '.join(f'{ratio:.2f}' for ratio in sorted(ratios))}; largest relative difference {error:.1e}")


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """On a CPU those that the work itself took: others may be using the machine."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    work()
    synchronize(device)
    return clock() - began


def _stream(total: int, net) -> None:
    """Two sets through extraction, disk and the distance, with features as wide as Inception's.

    Inception itself takes a batch first, for the memory of its layers; of 100,000 images it would take hours.
    """
    generator = torch.Generator().manual_seed(0)
    net.extract(torch.zeros(STREAM_BATCH, 3, 32, 32, dtype=torch.uint8))
    mix = torch.randn(3 * 8 * 8, 2048, generator=generator)

    def extract(pixels: Tensor) -> Extracted:
        small = torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 8).flatten(1)
        features = torch.relu(small @ mix)
        return Extracted(features, features[:, :1008])

    for_memory = replace(net, name="memory", extract=extract)
    gaussians = []
    for seed in (0, 1):

        def read(indices, seed: int = seed) -> np.ndarray:
            return np.random.default_rng((seed, int(indices[0]))).integers(0, 256, (len(indices), 32, 32, 3), np.uint8)

        name = f"noise {seed}"
        nothing = np.full(total, -1)
        images = ImageSet(name, "all", f"{name}, {total}", (32, 32), "none", total, nothing, (), read)
        gaussians.append(gaussian(features_of(for_memory, images, STREAM_BATCH, Share()).features))
    distance = frechet_distance(*gaussians)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"two sets of {total:,} images, distance {distance:.3f}: {peak:.2f} GiB at most, mapped pages and all")


if __name__ == "__main__":
    # Features of an earlier run would otherwise be found again, and nothing be measured.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["UNDIFFUSE_CACHE"] = cache
        tyro.cli(main)
