"""Activation checkpointing: the same losses and gradients to the last bit, from far fewer kept activations."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from undiffuse.config import Config
from undiffuse.networks.unet import UNet
from undiffuse.runs.run import open_run
from undiffuse.training.blocks import blocks_of, recompute_activations
from undiffuse.training.cost import largest_block_bytes, measure_cost, noise_inputs, saving
from undiffuse.training.state import new_state

CPU = torch.device("cpu")


@pytest.fixture
def recomputing(tiny: Config) -> Config:
    return replace(tiny, training=replace(tiny.training, activation_checkpointing=True))


def gradients(network: nn.Module, config: Config) -> list[torch.Tensor]:
    torch.manual_seed(0)
    config.diffusion.make_loss()(network, **noise_inputs(config, 8, CPU)).mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def test_training_is_the_same_to_the_last_bit_and_may_switch_when_it_is_resumed(
    tiny: Config, recomputing: Config, run_training: Callable[..., bool]
) -> None:
    assert any(isinstance(m, nn.Dropout) for m in tiny.build_network().modules())

    def train(name: str, config: Config, images: int) -> None:
        training = replace(config.training, total_images=images)
        constant = replace(config.optimizer, decay_fraction=0.0)
        run_training(Path(name), replace(config, training=training, optimizer=constant))

    train("kept", tiny, 600)
    train("switched", tiny, 200)
    train("switched", recomputing, 600)
    found, expected = (open_run(Path(name)).last_good() for name in ("switched", "kept"))
    assert found is not None
    assert expected is not None
    for part in ("network", "ema", "optimizer"):
        assert found.digest(part) == expected.digest(part), part


def test_far_fewer_activations_are_kept(tiny: Config, recomputing: Config) -> None:
    config = replace(tiny, network=replace(tiny.network, blocks=3))
    kept = {}
    for recompute in (False, True):
        network = config.build_network()
        if recompute:
            recompute_activations(network, CPU)
        with saving(network.parameters()) as saved:
            config.diffusion.make_loss()(network, **noise_inputs(config, 8, CPU))
        kept[recompute] = sum(saved.values())
    assert kept[True] < kept[False] / 3
    cost, cost_recomputing = (measure_cost(replace(each, network=config.network), CPU) for each in (tiny, recomputing))
    assert cost_recomputing.activation_bytes < cost.activation_bytes / 2
    # What a dry run says has the block that is computed again, besides what is kept.
    assert cost_recomputing.activation_bytes > kept[True] / 8 * tiny.training.batch


def test_what_is_kept_and_computed_again_is_counted(tiny: Config) -> None:
    class Exponentials(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = x.exp()  # Keeps its result.
            return x

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Exponentials(), Exponentials()

        def blocks(self) -> list[nn.Module]:
            return [self.first, self.second]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    network, x = Network(), torch.zeros(250, requires_grad=True)
    with saving(()) as saved:
        network(x)
    assert sum(saved.values()) == 10 * 1000
    assert largest_block_bytes(network, lambda: network(x)) == 5 * 1000
    recompute_activations(network, CPU)
    with saving([x]) as saved:
        network(x)
    assert sum(saved.values()) == 1000  # The second block's input.
    assert largest_block_bytes(network, lambda: network(x)) == 5 * 1000


def test_names_of_weights_stay_and_copies_are_of_their_own(tiny: Config, recomputing: Config) -> None:
    state = new_state(recomputing, CPU)
    assert list(state.network.state_dict()) == list(tiny.build_network().state_dict())
    copied = copy.deepcopy(state.network)
    gradients(copied, tiny)
    assert all(p.grad is None for p in state.network.parameters())


@pytest.mark.slow
def test_a_compiled_network_computes_the_same(tiny: Config, recomputing: Config) -> None:
    small = replace(tiny.network, multipliers=(1,), attention_resolutions=(8,))
    usual, compiled = (new_state(replace(each, network=small), CPU).network for each in (tiny, recomputing))
    compiled.compile(backend="eager")
    for ours, theirs in zip(gradients(compiled, tiny), gradients(usual, tiny), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_blocks_of_the_unet_are_apart_and_hold_nearly_all_weights(tiny: Config) -> None:
    network = tiny.build_network()
    assert isinstance(network, UNet)
    blocks = blocks_of(network)
    inside = [p for block in blocks for p in block.parameters()]
    assert len({id(p) for p in inside}) == len(inside)
    assert sum(p.numel() for p in inside) > 0.8 * sum(p.numel() for p in network.parameters())


def test_a_network_without_blocks_says_so(tiny: Config) -> None:
    with pytest.raises(ValueError, match=r"needs a method blocks\(\) in Conv2d"):
        recompute_activations(nn.Conv2d(1, 1, 1), CPU)


def test_dropout_on_mps_is_refused(tiny: Config) -> None:
    with pytest.raises(ValueError, match="cannot repeat dropout on MPS"):
        recompute_activations(tiny.build_network(), torch.device("mps"))
    without = replace(tiny, network=replace(tiny.network, dropout=0.0)).build_network()
    recompute_activations(without, torch.device("mps"))
