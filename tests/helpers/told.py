"""Configs of models that are told more than a class."""

from dataclasses import replace

from helpers.sampling import CONTINUOUS
from undiffuse.config import Config
from undiffuse.data.columns import AttributesConfig, CategoryColumn, NumberColumn
from undiffuse.data.image_condition import ImageConditionConfig
from undiffuse.networks.unet import UNetConfig

TABLE = AttributesConfig(
    (NumberColumn("brightness", 100.0, 50.0, 0.0, 255.0), CategoryColumn("light", ("dusk", "late noon"))), "digest"
)

TOLD = {
    "nothing": {},
    "table": {"attributes": TABLE},
    "low-res": {"image_condition": ImageConditionConfig(low_res=4, channels=1)},
    "pairs": {"image_condition": ImageConditionConfig(pairs="/photos/gray", channels=1, content="digest")},
}


def told(config: Config, network: UNetConfig, kind: str) -> Config:
    """The config for this network, without classes, told of a kind of `TOLD`."""
    network = replace(network, classes=0)
    return replace(config, network=network, diffusion=CONTINUOUS, class_names=(), **TOLD[kind])
