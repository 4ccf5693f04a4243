"""NFE is the number of evaluations that are really made."""

from dataclasses import replace

import pytest
from helpers.sampling import CPU, WAYS
from torch import nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.sampling.model import last, model_of, sample_steps
from undiffuse.sampling.nfe import nfe
from undiffuse.utils.conditions import NO_LABEL


@pytest.mark.parametrize(("diffusion", "sampling"), WAYS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("labeled", [True, False])
def test_nfe_are_those_that_are_made(
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    guidance: float,
    labeled: bool,
    network: nn.Module,
    config: Config,
) -> None:
    images = []
    network.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0])))
    sampling = replace(sampling, guidance=guidance)
    model = model_of(network, replace(config, diffusion=diffusion), CPU)
    last(sample_steps(model, [0, 1, 2], [0, 1, 2] if labeled else None, sampling))
    made = sum(images) / 3
    assert made == nfe(model, sampling, [0] if labeled else None)
    assert sum(images) / 3 == made  # Counting evaluates no network.


def test_nfe_of_mixed_labels_are_those_of_a_class(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    sampling = SamplingConfig(steps=6, guidance=2.0)
    assert [nfe(model, sampling, labels) for labels in ([NO_LABEL], [NO_LABEL, 1], [1, NO_LABEL])] == [6, 12, 12]
    assert nfe(model, sampling, [NO_LABEL] * 3 + [3]) == 12  # Wherever the one that is told something stands.
    assert model.find_labels("all") is None
