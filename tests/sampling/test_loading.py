"""The model of a run has the weights that were asked for."""

from pathlib import Path

import pytest
import torch
from helpers.sampling import CPU, made
from torch import nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.runs.run import Run, create_run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import model_of

NAMES = ("cats", "dogs", "snow")


@pytest.fixture
def saved(network: nn.Module, config: Config, tmp_path: Path) -> tuple[Run, nn.Module]:
    """A run with `network` as the weights in training and another network as their EMA."""
    run = create_run(tmp_path / "run", config)
    torch.manual_seed(1)
    other = config.build_network().eval()
    run.save(500, {"network": network.state_dict(), "ema": other.state_dict()}, {}, keep=1)
    return run, other


def test_a_loaded_model_has_the_weights_that_were_asked_for(saved: tuple[Run, nn.Module], network: nn.Module) -> None:
    run, other = saved
    sampling = SamplingConfig(steps=3)
    for weights, expected in (("network", network), ("ema", other)):
        model = load_model(run, CPU, weights)
        assert model.origin[1].images == 500
        assert model.class_names == NAMES
        of_network = model_of(expected, run.config, CPU)
        assert (made(model, [0, 1], sampling) - made(of_network, [0, 1], sampling)).abs().max() <= 1


def test_a_run_without_a_checkpoint_gives_no_model(config: Config, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run has no whole checkpoint"):
        load_model(create_run(tmp_path / "run", config), CPU)


def test_a_loaded_model_has_no_dropout_and_no_gradients(saved: tuple[Run, nn.Module]) -> None:
    model = load_model(saved[0], CPU)
    assert model.network is not None
    assert not any(module.training for module in model.network.modules())
    assert not any(weight.requires_grad for weight in model.network.parameters())
