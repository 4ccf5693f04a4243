"""Sets of images in memory with their features, and Inception with random weights, for the tests of evaluation."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3

from helpers import making
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import pixels_network
from undiffuse.utils.world import World


def context() -> EvaluationContext:
    """Measures pixels on the CPU."""
    return EvaluationContext(pixels_network(), World.alone(torch.device("cpu")), batch=100)


def random_pixels(count: int, seed: int, side: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def image_set(
    pixels: np.ndarray, name: str = "random", labels: np.ndarray | None = None, class_names: Sequence[str] = ()
) -> ImageSet:
    """Images in memory, `(n, height, width, 3)`."""
    return ImageSet(
        name=name,
        split="all",
        content=hashlib.sha256(pixels.tobytes()).hexdigest(),
        size=pixels.shape[1:3],
        fit="none",
        total_images=len(pixels),
        labels=np.full(len(pixels), -1) if labels is None else labels,
        class_names=tuple(class_names),
        read=lambda indices: pixels[np.asarray(indices)],
    )


def feature_set(pixels: np.ndarray) -> FeatureSet:
    return context().feature_set(image_set(pixels))


def save_random_inception(path: Path) -> Path:
    """Random weights in torch-fidelity's format, whose features differ from image to image: 95 MB."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda url, progress: {})
        inception = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
        patch.setattr(inception, "load_state_dict", lambda self, state: None)
        network = inception("inception-v3-compat", ["2048"])
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):  # So that folding a batch norm wrongly shows.
            nn.init.normal_(layer.get_buffer("running_mean"), std=0.1)
            nn.init.uniform_(layer.get_buffer("running_var"), 0.7, 1.3)
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.normal_(layer.bias, std=0.1)
    torch.save(network.state_dict(), path)
    return path


def blobs(folder: Path, count: int, seed: int, brightness: int, side: int = 32) -> Path:
    """A folder of images of random smooth colors."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        coarse = rng.normal(brightness, 60, (4, 4, 3)).clip(0, 255).astype(np.uint8)
        making.save(folder / f"{i:03d}.png", Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return folder
