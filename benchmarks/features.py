"""Inception features: speed against torch-fidelity's own extractor, and the memory that many images take.

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

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from undiffuse.features.cache import features_of
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import Extracted, FeatureNetwork, load_features
from undiffuse.metrics.frechet import frechet_distance, gaussian
from undiffuse.utils.device import choose_device, synchronize
from undiffuse.utils.world import World

STREAM_BATCH = 64


def main(weights: str, batch: int = 32, rounds: int = 7, stream: int = 0) -> None:
    """Alternates the two over batches of 32x32 images; the median of the ratios is robust on a busy machine.

    Args:
        weights: A file in torch-fidelity's format, even of random weights.
        batch: Images at once.
        rounds: Batches for each.
        stream: Instead, sends twice this many images through everything but the network and measures the memory.
    """
    device = choose_device()
    ours = load_features("inception", weights, device)
    if stream:
        _stream(stream, ours)
        return
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights
    ).to(device)
    pixels = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = ours(pixels).features, theirs(pixels.to(device))[0].cpu()
        error = ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()
        ratios, speeds = [], []
        for _ in range(rounds):
            their_seconds = _seconds(lambda: theirs(pixels.to(device)), device)
            our_seconds = _seconds(lambda: ours(pixels), device)
            ratios.append(their_seconds / our_seconds)
            speeds.append(batch / our_seconds)
    print(f"ours {statistics.median(speeds):.1f} images/s, {statistics.median(ratios):.2f} times torch-fidelity's")
    print(f"ratios {' '.join(f'{ratio:.2f}' for ratio in sorted(ratios))}; largest relative difference {error:.1e}")


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """On a CPU, the process's own CPU time: others may be using the machine."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    work()
    synchronize(device)
    return clock() - began


def _stream(total: int, network: FeatureNetwork) -> None:
    """Two sets through extraction, disk and the distance, with as many features as Inception has.

    Inception itself gets only one batch, for the memory of its layers: 100,000 images would take hours.
    """
    generator = torch.Generator().manual_seed(0)
    network(torch.zeros(STREAM_BATCH, 3, 32, 32, dtype=torch.uint8))
    mix = torch.randn(3 * 8 * 8, 2048, generator=generator)

    def extract(pixels: Tensor) -> Extracted:
        small = F.adaptive_avg_pool2d(pixels.float() / 255, 8).flatten(1)
        features = torch.relu(small @ mix)
        return Extracted(features, features[:, :1008])

    wide, world = replace(network, name="memory", distance="", extract=extract), World.alone()
    gaussians = []
    for seed in (0, 1):

        def read(indices, seed: int = seed) -> np.ndarray:
            return np.random.default_rng((seed, int(indices[0]))).integers(0, 256, (len(indices), 32, 32, 3), np.uint8)

        name = f"noise {seed}"
        labels = np.full(total, -1)
        images = ImageSet(name, "all", f"{name}, {total}", (32, 32), "none", total, labels, (), read)
        gaussians.append(gaussian(features_of(wide, images, STREAM_BATCH, world).features))
    distance = frechet_distance(*gaussians)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"two sets of {total:,} images, distance {distance:.3f}: {peak:.2f} GiB at most, including mapped pages")


if __name__ == "__main__":
    # An empty cache: features of an earlier run would otherwise be found, and nothing would be measured.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["UNDIFFUSE_CACHE"] = cache
        tyro.cli(main)
