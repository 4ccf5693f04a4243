"""A small model whose weights are random, and its config."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.sampling import CONTINUOUS, CPU
from torch import nn

from undiffuse.config import Config
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.sampling.model import Model, model_of


@pytest.fixture
def config(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Config:
    return replace(preset_config("small"), network=small_network, diffusion=CONTINUOUS)


@pytest.fixture
def network(small_network: UNetConfig, random_unet: Callable[[UNetConfig], UNet]) -> UNet:
    return random_unet(small_network)


@pytest.fixture
def model(network: nn.Module, config: Config) -> Model:
    return model_of(network, config, CPU)
