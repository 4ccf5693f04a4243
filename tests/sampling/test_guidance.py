"""Labels and guidance: what they change, and what they cost."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers.sampling import CPU
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion.denoiser import Prediction
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.sampling.model import last, model_of, sample_steps
from undiffuse.sampling.nfe import nfe
from undiffuse.utils.conditions import NO_LABEL


def test_label_and_guidance_change_the_image_of_a_seed(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)

    def of(label: int, guidance: float) -> Tensor:
        return last(sample_steps(model, [0], [label], SamplingConfig(steps=4, guidance=guidance))).x

    images = [of(0, 1.0), of(1, 1.0), of(NO_LABEL, 1.0), of(0, 3.0)]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(of(NO_LABEL, 3.0), of(NO_LABEL, 1.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SamplingConfig(steps=6, guidance=2.0, guidance_interval=(0.2, 3.0)), "inside"),
        (SamplingConfig(steps=6, guidance=2.0, guidance_interval=(1e6, 2e6)), "never"),
        (SamplingConfig(sampler="heun", steps=6, guidance=2.0, guidance_interval=(0.2, 3.0)), "inside"),
        (SamplingConfig(steps=6, guidance=1.0, guidance_interval=(0.2, 3.0)), "never"),
    ],
)
@pytest.mark.parametrize("by_another", [True, False])
def test_guidance_costs_an_evaluation_inside_its_interval_alone(
    sampling: SamplingConfig, expected: str, by_another: bool, network: nn.Module, config: Config
) -> None:
    levels, images = [], []
    model = model_of(network, config, CPU)

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        levels.append(float(sigma[0]))
        return model.predict(x, sigma, label)

    network.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0])))
    watched = replace(model, predict=predict)
    if by_another:
        watched = watched.guided_by(model)
    last(sample_steps(watched, [0], [0], sampling))
    inside = sum(0.2 < level <= 3.0 for level in levels) if expected == "inside" else 0
    assert expected == "never" or 0 < inside < len(levels)
    assert sum(images) == len(levels) + inside == nfe(watched, sampling, [0])


def test_a_model_that_guides_itself_changes_nothing(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    images = [
        each.sample(2, steps=3, guidance=guidance)
        for each, guidance in ((model, 1.0), (model.guided_by(model), 3.0), (model, 3.0))
    ]
    assert abs(images[0].astype(int) - images[1].astype(int)).max() <= 1
    assert abs(images[0].astype(int) - images[2].astype(int)).max() > 10


def test_a_guide_without_classes_gets_no_labels(
    network: nn.Module, config: Config, random_unet: Callable[[UNetConfig], UNet], small_network: UNetConfig
) -> None:
    plain = replace(config, network=replace(small_network, classes=0), class_names=())
    guide = model_of(random_unet(replace(small_network, classes=0)), plain, CPU)
    model = model_of(network, config, CPU)
    assert abs(model.guided_by(guide).sample(1, guidance=2.0, steps=3).astype(int) - model.sample(1, steps=3)).max() > 0
    with pytest.raises(ValueError, match="cannot guide"):
        guide.guided_by(model)
    with pytest.raises(ValueError, match="--guide does nothing at guidance 1"):
        model.guided_by(guide).sample(1, steps=3)


def test_each_image_can_have_its_own_label(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    names = model.class_names
    mixed = model.sample(3, label=[names[1], names[0], 1], steps=3, batch=2)
    turns = model.sample(3, label=f"{names[1]},{names[0]}", steps=3)
    assert abs(mixed.astype(int) - turns).max() <= 1
    assert abs(mixed[:1].astype(int) - model.sample(1, label=1, steps=3)).max() <= 1
    for two in ([0, 1], torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="2 labels for 3 images"):
            model.sample(3, label=two)
    always = replace(config, training=replace(config.training, label_dropout=0.0))
    with pytest.raises(ValueError, match="always saw the class"):
        model_of(network, always, CPU).sample(2, label=[0, NO_LABEL], guidance=1.0)
