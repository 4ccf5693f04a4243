"""Inception of random weights in torch-fidelity's format, made once, and small sets of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers import making

if TYPE_CHECKING:
    from undiffuse.features.networks import FeatureNet


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights whose features differ from image to image, as those of the release do: 95 MB."""
    import torch
    from torch import nn
    from torch_fidelity import feature_extractor_inceptionv3 as module

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda url, progress: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):  # Nothing is folded away that would not show.
            nn.init.normal_(layer.get_buffer("running_mean"), std=0.1)
            nn.init.uniform_(layer.get_buffer("running_var"), 0.7, 1.3)
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.normal_(layer.bias, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "random-inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def inception(inception_weights: Path) -> FeatureNet:
    import torch

    from undiffuse.features.networks import load_inception

    return load_inception(inception_weights, torch.device("cpu"), given=True)


@pytest.fixture(scope="session")
def two_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """14 and 18 images of 32x32 from two distributions: smooth blobs, brighter in the second."""
    folder = tmp_path_factory.mktemp("images")
    return blobs(folder / "real", 14, 0, 90), blobs(folder / "fake", 18, 1, 130)


def blobs(folder: Path, count: int, seed: int, brightness: int, side: int = 32) -> Path:
    """Images of random smooth colors."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for i in range(count):
        coarse = rng.normal(brightness, 60, (4, 4, 3)).clip(0, 255).astype(np.uint8)
        making.save(folder / f"{i:03d}.png", Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return folder
