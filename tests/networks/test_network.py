"""A network of one's own: any module F(x, c_noise, label) with a config."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pydantic
import pytest
import torch
from helpers.networks import Tiny, TinyConfig

from undiffuse.config import Config, from_dict, to_json
from undiffuse.networks.network import NetworkConfig
from undiffuse.utils.validation import sentence


@pydantic.dataclasses.dataclass(frozen=True)
class PydanticConfig(NetworkConfig):
    width: int = 4


@pytest.fixture
def config(preset_config: Callable[[str], Config]) -> Config:
    made = preset_config("small")
    network = TinyConfig(size=made.network.size, image_channels=3, classes=3, width=6)
    return replace(made, network=network)


@pytest.mark.parametrize("learned_variance", [False, True])
def test_an_own_network_is_built_by_its_config(learned_variance: bool) -> None:
    network = TinyConfig(size=(8, 6), image_channels=1, classes=2).build(learned_variance)
    output = network(torch.ones(2, 1, 8, 6), torch.tensor([0.5, 1.0]), torch.tensor([-1, 1]))
    assert output.shape == (2, 2 if learned_variance else 1, 8, 6)


def test_an_own_config_survives_json(config: Config) -> None:
    values = json.loads(to_json(config))
    assert values["network"]["type"] == "TinyConfig"
    read = from_dict(values, network=TinyConfig)
    assert read == config
    assert type(read.network) is TinyConfig
    assert isinstance(read.build_network(), Tiny)


def test_reading_without_the_class_says_how_to_pass_it(config: Config) -> None:
    with pytest.raises(ValueError, match=r"TinyConfig.*undiffuse\.load\(.*network=TinyConfig\)"):
        from_dict(json.loads(to_json(config)))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"width": "wide"}, "width"), ({"depth": 3}, "depth"), ({"image_channels": 0}, "image_channels")],
)
def test_an_own_config_is_checked_when_it_is_read(change: dict[str, Any], words: str, config: Config) -> None:
    values = json.loads(to_json(config))
    values["network"] |= change
    with pytest.raises(ValueError, match=f"network.{words}"):
        from_dict(values, network=TinyConfig)


def test_a_pydantic_config_is_checked_when_it_is_made() -> None:
    with pytest.raises(pydantic.ValidationError) as refusal:
        PydanticConfig(image_channels=0)
    assert sentence(refusal.value) == "image_channels 0: Input should be greater than or equal to 1"


def test_a_config_without_build_says_so() -> None:
    with pytest.raises(NotImplementedError, match="PydanticConfig needs a method build"):
        PydanticConfig().build()
