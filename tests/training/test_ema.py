"""The EMA of the weights against its closed form."""

import pytest
import torch
from torch import nn

from undiffuse.training.ema import ema_copy, update_ema


def weights(value: float) -> nn.Module:
    """A network with a single weight."""
    network = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
    nn.init.constant_(network.weight, value)
    return network


def distance_after(images: int, batch: int, halflife_images: float, already_seen: int = 0) -> float:
    """How far the EMA still is from constant weights, from which it was 1 away at the start."""
    network, ema = weights(1.0), weights(0.0)
    for seen in range(already_seen + batch, already_seen + images + batch, batch):
        update_ema(ema, network, batch, seen, halflife_images)
    return 1 - float(ema.get_parameter("weight"))


def test_one_half_life_halves_the_distance_to_constant_weights() -> None:
    long_before = 10**9  # Past the ramp-up.
    assert distance_after(1000, 10, 1000, long_before) == pytest.approx(0.5, rel=1e-9)
    assert distance_after(3000, 10, 1000, long_before) == pytest.approx(0.125, rel=1e-9)


@pytest.mark.parametrize("batch", [1, 50, 1000])
def test_the_half_life_is_the_same_for_every_batch_size(batch: int) -> None:
    assert distance_after(1000, batch, 2000, already_seen=10**9) == pytest.approx(0.5**0.5, rel=1e-9)


def test_the_ema_is_an_exponentially_weighted_sum() -> None:
    values, batch, halflife, seen = [3.0, -1.0, 0.5, 8.0], 30, 100.0, 10**6
    ema = weights(2.0)
    for i, value in enumerate(values, 1):
        update_ema(ema, weights(value), batch, seen + i * batch, halflife)
    kept = 0.5 ** (batch / halflife)
    expected = kept**4 * 2.0 + sum((1 - kept) * kept ** (3 - i) * value for i, value in enumerate(values))
    assert float(ema.get_parameter("weight")) == pytest.approx(expected, rel=1e-12)


def test_a_young_emas_half_life_is_a_twentieth_of_its_images() -> None:
    for seen in (100, 2000, 19_999):
        assert distance_after(100, 100, 1000, already_seen=seen - 100) == pytest.approx(0.5 ** (100 / (0.05 * seen)))
    # After 20 half-lives it is the configured one.
    assert distance_after(100, 100, 1000, already_seen=19_900) == pytest.approx(0.5 ** (100 / 1000))


def test_a_young_ema_has_forgotten_the_initial_weights() -> None:
    # After n batches the initial weights still count 0.5^(20 (1 + 1/2 + ... + 1/n)), which is at most 0.5^20.
    for batch in (1, 64, 5000):
        assert 0 <= distance_after(5000, batch, 500_000) < 1e-6


def test_with_a_half_life_of_zero_the_ema_is_the_weights() -> None:
    assert distance_after(1, 1, 0.0) == 0


def test_the_ema_is_a_separate_network_that_is_never_trained() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    ema = ema_copy(network)
    assert not ema.training
    assert network.training
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    before = {name: tensor.clone() for name, tensor in ema.state_dict().items()}
    nn.init.zeros_(network.get_parameter("0.weight"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in ema.state_dict().items())


def test_updating_the_ema_leaves_the_network_and_gradients_alone() -> None:
    network = nn.Linear(3, 3)
    ema = ema_copy(network)
    network(torch.ones(1, 3)).sum().backward()
    before = {name: (p.detach().clone(), p.grad) for name, p in network.named_parameters()}
    update_ema(ema, network, 10, 10**6, 100.0)
    for name, p in network.named_parameters():
        assert torch.equal(p.detach(), before[name][0])
        assert p.grad is before[name][1]
        assert p.requires_grad


def test_buffers_are_copied() -> None:
    network = nn.BatchNorm1d(3)
    ema = ema_copy(network)
    network(torch.randn(8, 3))
    update_ema(ema, network, 10, 10**6, 100.0)
    assert all(torch.equal(a, b) for a, b in zip(ema.buffers(), network.buffers(), strict=True))
