"""Small models that are told more than a class, and whose weights are random."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.sampling import CONTINUOUS, CPU
from torch import nn

from undiffuse.config import Config
from undiffuse.data.columns import AttributesConfig, CategoryColumn, NumberColumn
from undiffuse.data.image_condition import ImageConditionConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.sampling.model import Model, model_of

TABLE = AttributesConfig(
    (NumberColumn("brightness", 100.0, 50.0, 0.0, 255.0), CategoryColumn("light", ("dusk", "late noon"))), "digest"
)

TOLD = {
    "nothing": {},
    "table": {"attributes": TABLE},
    "low-res": {"image_condition": ImageConditionConfig(low_res=4, channels=1)},
    "pairs": {"image_condition": ImageConditionConfig(pairs="/photos/gray", channels=1, content="digest")},
}


@pytest.fixture
def told_config(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Callable[[str], Config]:
    """The config of a run without classes, told of a kind of `TOLD`, for gray images of 8x8."""

    def make(kind: str) -> Config:
        network = replace(small_network, classes=0)
        config = replace(preset_config("small"), network=network, diffusion=CONTINUOUS, class_names=())
        return replace(config, **TOLD[kind])

    return make


@pytest.fixture
def told_model(
    told_config: Callable[[str], Config], randomized: Callable[[nn.Module], nn.Module]
) -> Callable[[str], Model]:
    """A model of such a config."""

    def make(kind: str) -> Model:
        config = told_config(kind)
        return model_of(randomized(config.build_network()).eval(), config, CPU)

    return make
