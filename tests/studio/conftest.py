"""Small models that are told more than a class, and whose weights are random."""

from collections.abc import Callable

import pytest
from helpers.sampling import CPU
from helpers.told import told
from torch import nn

from undiffuse.config import Config
from undiffuse.networks.unet import UNetConfig
from undiffuse.sampling.model import Model, model_of


@pytest.fixture
def told_config(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Callable[[str], Config]:
    """The config of a run without classes, told of a kind of `helpers.told.TOLD`, for gray images of 8x8."""
    return lambda kind: told(preset_config("small"), small_network, kind)


@pytest.fixture
def told_model(
    told_config: Callable[[str], Config], randomized: Callable[[nn.Module], nn.Module]
) -> Callable[[str], Model]:
    """A model of such a config."""

    def make(kind: str) -> Model:
        config = told_config(kind)
        return model_of(randomized(config.build_network()).eval(), config, CPU)

    return make
