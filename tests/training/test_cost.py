"""What a dry run says of memory is what training keeps, however few images it measures."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from undiffuse.config import Config, OptimizerConfig
from undiffuse.training import cost
from undiffuse.training.cost import MEASURED_IMAGES, measure_cost, noise_inputs, saving

CPU = torch.device("cpu")


def test_noise_covers_the_range_of_images_and_the_levels_of_training(tiny: Config) -> None:
    torch.manual_seed(0)
    inputs = noise_inputs(tiny, 64, CPU)
    x0, sigma = inputs["x0"], inputs["sigma"]
    assert x0.shape == inputs["eps"].shape == (64, 1, 8, 8)
    assert -1 <= x0.min() < -0.99
    assert 0.99 < x0.max() <= 1
    assert abs(float(inputs["eps"].std()) - 1) < 0.1
    assert torch.equal(sigma, sigma.sort().values)
    assert 0 < float(sigma[0]) < 0.5 < float(sigma[-1])
    assert torch.equal(inputs["label"], torch.zeros(64, dtype=torch.long))


@pytest.mark.parametrize("muon", [False, True])
def test_memory_is_weights_three_times_the_optimizer_and_the_activations(tiny: Config, muon: bool) -> None:
    optimizer = OptimizerConfig(muon=muon)
    config = replace(tiny, optimizer=optimizer, training=replace(tiny.training, batch=24, microbatch=24))
    found = measure_cost(config, CPU)
    network = config.build_network()
    with saving(network.parameters()) as saved:
        config.diffusion.make_loss()(network, **noise_inputs(config, MEASURED_IMAGES, CPU)).mean()
    assert found.activation_bytes == sum(saved.values()) * 24 // MEASURED_IMAGES
    weights = [4 * p.numel() for p in network.parameters()]
    assert found.parameters == sum(weights) // 4
    state = found.memory_bytes - found.activation_bytes
    if muon:  # Keeps one tensor for each of its weights, AdamW two and a count.
        assert 4 * sum(weights) < state < 5 * sum(weights)
    else:
        assert state == 5 * sum(weights) + 4 * len(weights)


def test_on_a_cpu_a_few_images_are_measured_for_a_large_microbatch(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def watched(config: Config, images: int, device: torch.device) -> dict[str, Any]:
        measured.append(images)
        return noise_inputs(config, images, device)

    monkeypatch.setattr(cost, "noise_inputs", watched)
    for batch, microbatch in ((400, 200), (400, None), (2, None)):
        measure_cost(replace(tiny, training=replace(tiny.training, batch=batch, microbatch=microbatch)), CPU)
    assert measured == [MEASURED_IMAGES, MEASURED_IMAGES, 2]
