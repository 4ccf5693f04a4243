"""The U-Net: the paper's number of parameters, zero at the start, every setting, and what each output depends on."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from helpers import tensors
from pydantic import ValidationError
from torch import nn

from undiffuse.networks.layers import Downsample, ResidualBlock, SelfAttention, sinusoidal_embedding
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.utils.conditions import Conditions, ConditionSizes, coordinates
from undiffuse.utils.validation import sentence

normal = partial(tensors.normal, dtype=torch.float32)


def test_ddpm_cifar10_has_35_746_307_parameters() -> None:
    def conv(channels_in: int, channels_out: int, side: int) -> int:
        return channels_in * channels_out * side**2 + channels_out

    def linear(features_in: int, features_out: int) -> int:
        return features_in * features_out + features_out

    def norm(channels: int) -> int:
        return 2 * channels

    def block(channels_in: int, channels_out: int) -> int:
        shortcut = conv(channels_in, channels_out, 1) if channels_in != channels_out else 0
        first = norm(channels_in) + conv(channels_in, channels_out, 3)
        second = norm(channels_out) + conv(channels_out, channels_out, 3)
        return first + linear(512, channels_out) + second + shortcut

    def attention(channels: int) -> int:
        return norm(channels) + 4 * conv(channels, channels, 1)  # Query, key, value, projection.

    # Ho et al. 2020, appendix B: 128, 256, 256, 256 channels at 32, 16, 8, 4 pixels, two blocks each, attention at 16.
    expected = linear(128, 512) + linear(512, 512) + conv(3, 128, 3)
    expected += 2 * block(128, 128) + conv(128, 128, 3)
    expected += block(128, 256) + block(256, 256) + 2 * attention(256) + conv(256, 256, 3)
    expected += 2 * block(256, 256) + conv(256, 256, 3)
    expected += 2 * block(256, 256)
    expected += 2 * block(256, 256) + attention(256)
    # On the way up each block also takes what its mirror on the way down had.
    expected += 3 * block(256 + 256, 256) + conv(256, 256, 3)
    expected += 3 * block(256 + 256, 256) + conv(256, 256, 3)
    expected += 2 * block(256 + 256, 256) + block(256 + 128, 256) + 3 * attention(256) + conv(256, 256, 3)
    expected += block(256 + 128, 128) + 2 * block(128 + 128, 128)
    expected += norm(128) + conv(128, 3, 3)

    with torch.device("meta"):
        network = UNet(UNetConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == expected == 35_746_307


def keeps_size(layer: nn.Module) -> bool:
    """Whether the layer keeps the height and width of the feature map."""
    if isinstance(layer, ResidualBlock):
        return isinstance(layer.resample, nn.Identity)
    return isinstance(layer, SelfAttention)


def test_a_new_network_returns_zero(small_network: UNetConfig) -> None:
    output = UNet(small_network)(normal(3, 1, 8, 8), torch.tensor([0.0, 5.0, 999.0]), torch.tensor([0, 2, -1]))
    assert torch.equal(output, torch.zeros(3, 1, 8, 8))


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (8, 16)), (4, (24, 8))])
def test_every_output_depends_on_every_channel_and_pixel(
    channels: int, size: tuple[int, int], patch: int, small_network: UNetConfig, random_unet: Callable
) -> None:
    network = random_unet(replace(small_network, image_channels=channels, size=size, patch=patch))
    x = normal(1, channels, *size).requires_grad_()
    output = network(x, torch.tensor([1.0]), torch.tensor([0]))
    for channel in range(channels):
        (gradient,) = torch.autograd.grad(output[0, channel, -1, 0], x, retain_graph=True)
        assert (gradient != 0).all()


@pytest.mark.parametrize("patch", [1, 2])
def test_learned_variance_adds_its_channels_after_those_of_f(
    patch: int, small_network: UNetConfig, random_unet: Callable
) -> None:
    shape = replace(small_network, size=(16, 16), image_channels=3, patch=patch)
    plain, learned = random_unet(shape), UNet(shape, learned_variance=True).eval()
    weights = plain.state_dict()
    variance = {name: normal(*weights[name].shape, seed=1) for name in ("output.2.weight", "output.2.bias")}
    learned.load_state_dict(weights | {name: torch.cat([weights[name], v]) for name, v in variance.items()})
    x, c_noise, label = normal(2, 3, 16, 16), torch.tensor([1.0, 700.0]), torch.tensor([0, 2])
    output = learned(x, c_noise, label)
    torch.testing.assert_close(output[:, :3], plain(x, c_noise, label))
    plain.load_state_dict(weights | variance)
    torch.testing.assert_close(output[:, 3:], plain(x, c_noise, label))


def test_head_channels_give_wider_levels_more_heads(small_network: UNetConfig, random_unet: Callable) -> None:
    shape = replace(small_network, attention_resolutions=(8, 4), heads=1, head_channels=8)
    heads = {(a.project.in_channels, a.heads) for a in random_unet(shape).modules() if isinstance(a, SelfAttention)}
    assert heads == {(16, 2), (32, 4)}


def test_time_scale_multiplies_c_noise(small_network: UNetConfig, random_unet: Callable) -> None:
    x, c_noise = normal(2, 1, 8, 8), torch.tensor([12.0, 900.0])
    scaled = random_unet(replace(small_network, time_scale=0.25))
    assert torch.equal(scaled(x, c_noise), random_unet(small_network)(x, c_noise / 4))


@pytest.mark.parametrize("resampling", ["residual", "none"])
def test_each_resampling_halves_and_doubles_the_feature_map(
    resampling: Literal["residual", "none"], small_network: UNetConfig, random_unet: Callable
) -> None:
    network = random_unet(replace(small_network, size=(16, 8), resampling=resampling))
    between = [layer for stage in (*network.down, *network.up) for layer in stage if not keeps_size(layer)]
    types = [(layer.resample.__name__,) if resampling == "residual" else (type(layer).__name__,) for layer in between]
    assert types == ([("halved",), ("doubled",)] if resampling == "residual" else [("AvgPool2d",), ("Upsample",)])
    x = normal(1, 1, 16, 8).requires_grad_()
    output = network(x, torch.tensor([1.0]), torch.tensor([0]))
    assert output.shape == x.shape
    (gradient,) = torch.autograd.grad(output[0, 0, -1, 0], x)
    assert (gradient != 0).all()


def test_sparse_up_attention_follows_only_a_levels_last_block(small_network: UNetConfig) -> None:
    shape = replace(small_network, blocks=2, attention_resolutions=(8, 4), sparse_up_attention=True)
    network = UNet(shape)

    def attends(stages: nn.ModuleList) -> list[bool]:
        return [any(isinstance(layer, SelfAttention) for layer in stage.children()) for stage in stages]

    assert attends(network.up) == [False, False, True, False, False, True]
    # On the way down nothing changes: two blocks, the convolution, two blocks.
    assert attends(network.down) == [True, True, False, True, True]


def test_input_multiplier_sets_width_of_first_convolution(small_network: UNetConfig, random_unet: Callable) -> None:
    wide = replace(small_network, multipliers=(2, 2))
    assert UNet(wide).input.out_channels == 32
    network = random_unet(replace(wide, input_multiplier=1))
    assert network.input.out_channels == 16
    assert network.up[-1][0].conv_in.in_channels == 32 + 16  # Its skip comes back at the end.
    assert network(normal(1, 1, 8, 8), torch.tensor([1.0])).any()


def test_skip_scale_reaches_every_sum(small_network: UNetConfig) -> None:
    network = UNet(replace(small_network, skip_scale=0.5, resampling="residual"))
    summing = [module for module in network.modules() if isinstance(module, ResidualBlock | SelfAttention)]
    assert {module.skip_scale for module in summing} == {0.5}


def test_norm_eps_and_asymmetric_downsampling_reach_their_layers(small_network: UNetConfig) -> None:
    shape = replace(small_network, norm_eps=1e-6, frequency_shift=1, asymmetric_downsampling=True)
    network = UNet(shape)
    assert {norm.eps for norm in network.modules() if isinstance(norm, nn.GroupNorm)} == {1e-6}
    assert [down.asymmetric for down in network.modules() if isinstance(down, Downsample)] == [True]


def test_frequency_shift_reaches_the_embedding(small_network: UNetConfig, random_unet: Callable) -> None:
    inputs_seen = []
    network = random_unet(replace(small_network, frequency_shift=1))
    network.embed.register_forward_pre_hook(lambda module, inputs: inputs_seen.append(inputs[0]))
    network(normal(1, 1, 8, 8), torch.tensor([3.0]))
    torch.testing.assert_close(inputs_seen[0], sinusoidal_embedding(torch.tensor([3.0]), 16, shift=1))


def test_a_transposed_image_gives_the_transposed_output(small_network: UNetConfig, random_unet: Callable) -> None:
    wide = replace(small_network, size=(8, 16), attention_resolutions=(8,))
    network, turned = random_unet(wide), random_unet(replace(wide, size=(16, 8)))
    turned.load_state_dict({n: w.mT if w.ndim == 4 else w for n, w in network.state_dict().items()})
    x, c_noise, label = normal(2, 1, 8, 16), torch.tensor([1.0, 700.0]), torch.tensor([0, 1])
    # Attention once down, in the middle, and twice up, all at the lower level, whose longer side is 8.
    assert [len(w) for name, w in network.state_dict().items() if "qkv.weight" in name] == [3 * 32] * 4
    torch.testing.assert_close(turned(x.mT, c_noise, label), network(x, c_noise, label).mT)


def test_patches_are_pixels_folded_into_channels(small_network: UNetConfig, random_unet: Callable) -> None:
    patched = random_unet(replace(small_network, size=(16, 16), image_channels=3, patch=2))
    plain = random_unet(replace(small_network, size=(8, 8), image_channels=12, patch=1))
    plain.load_state_dict(patched.state_dict())
    x, c_noise = normal(2, 3, 16, 16), torch.tensor([1.0, 700.0])
    folded = plain(F.pixel_unshuffle(x, 2), c_noise)
    torch.testing.assert_close(patched(x, c_noise), F.pixel_shuffle(folded, 2))


@pytest.mark.parametrize(
    ("size", "multipliers", "patch"),
    [
        ((30, 30), (1, 1, 1, 1), 1),
        ((28, 28), (1, 1, 1, 1), 1),
        ((3, 3), (1, 1, 1, 1), 1),
        ((32, 12), (1, 1, 1), 2),
        ((33, 100), (1, 1, 1, 1), 2),
        ((9, 9), (1,), 2),
    ],
)
def test_a_size_that_does_not_fit_gets_the_nearest_that_does(
    size: tuple[int, int], multipliers: tuple[int, ...], patch: int, small_network: UNetConfig, random_unet: Callable
) -> None:
    shape = replace(small_network, size=(64, 64), multipliers=multipliers, patch=patch)
    with pytest.raises(ValidationError) as refusal:
        replace(shape, size=size)
    message = sentence(refusal.value)
    assert message.startswith(f"size {size[0]}x{size[1]} does not fit")
    named = re.search(r"for example (\d+)x(\d+)", message)
    assert named is not None
    fitting = int(named[1]), int(named[2])
    stride = patch * 2 ** (len(multipliers) - 1)
    for side, requested in zip(fitting, size, strict=True):
        assert abs(side - requested) <= stride / 2 or side == stride
    network = random_unet(replace(shape, size=fitting))
    assert network(normal(1, 1, *fitting), torch.ones(1)).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": 5}, "16 channels cannot be split into 5 groups and 2 heads"),
        ({"heads": 3}, "cannot be split into 4 groups and 3 heads"),
        ({"groups": 0}, "groups 0: Input should be greater than or equal to 1"),
        ({"heads": 0}, "heads 0: "),
        ({"patch": 0}, "patch 0: "),
        ({"channels": -16}, "channels -16: "),
        ({"blocks": 0}, "blocks 0: "),
        ({"image_channels": 0}, "image_channels 0: "),
        ({"channels": 15, "groups": 3, "heads": 1}, "channels 15: Input should be a multiple of 2"),
        ({"multipliers": ()}, r"multipliers \(\): "),
        ({"multipliers": (1, 0)}, "multipliers.1 0: "),
        ({"classes": -1}, "classes -1: "),
        ({"dropout": 1.0}, "dropout 1.0: Input should be less than 1"),
        ({"norm_eps": 0.0}, "norm_eps 0.0: Input should be greater than 0"),
        ({"time_scale": float("nan")}, "time_scale nan: "),
        ({"head_channels": -8}, "head_channels -8: "),
        ({"input_multiplier": -1}, "input_multiplier -1: "),
        ({"groups": 32, "multipliers": (2, 2), "input_multiplier": 1}, "16 channels cannot be split into 32 groups"),
        ({"skip_scale": 0.0}, "skip_scale 0.0: "),
        ({"asymmetric_downsampling": True, "resampling": "none"}, "needs resampling convolution, not none"),
        ({"resampling": "bilinear"}, "resampling 'bilinear': Input should be 'convolution', 'residual' or 'none'"),
        ({"head_channels": 6}, "16 channels cannot be split into 4 groups and heads of 6"),
        ({"frequency_shift": 8}, "frequency_shift 8 is too large"),
        ({"chanels": 8}, "unknown setting chanels"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings: dict, words: str, small_network: UNetConfig) -> None:
    with pytest.raises(ValidationError) as refusal:
        replace(small_network, **settings)
    assert re.match(f".*{words}", sentence(refusal.value))


@pytest.mark.parametrize("scale_shift_norm", [False, True])
def test_label_and_noise_level_change_the_output(
    scale_shift_norm: bool, small_network: UNetConfig, random_unet: Callable
) -> None:
    network = random_unet(replace(small_network, scale_shift_norm=scale_shift_norm))
    x = normal(1, 1, 8, 8).expand(4, -1, -1, -1)
    by_label = network(x, torch.ones(4), torch.tensor([0, 1, 2, -1]))
    by_level = network(x, torch.tensor([-1.0, 0.1, 1.0, 999.0]), torch.zeros(4, dtype=torch.int64))
    for outputs in (by_label, by_level):
        distances = torch.cdist(outputs.flatten(1), outputs.flatten(1))
        assert distances[~torch.eye(4, dtype=torch.bool)].min() > 1e-3


def test_label_minus_one_is_no_label(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(small_network)
    x, c_noise = normal(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    assert torch.equal(network(x, c_noise, torch.tensor([-1, -1])), network(x, c_noise, None))


def test_a_network_without_classes_ignores_labels(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(replace(small_network, classes=0))
    x, c_noise = normal(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    assert torch.equal(network(x, c_noise, torch.tensor([0, 1])), network(x, c_noise, None))


def test_images_of_a_batch_are_independent(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(small_network)
    x, c_noise, label = normal(3, 1, 8, 8), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, -1])
    together = network(x, c_noise, label)
    for i in range(3):
        single = network(x[i : i + 1], c_noise[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(single, together[i : i + 1], rtol=1e-5, atol=1e-5)


def test_how_an_image_was_augmented_is_one_more_condition(small_network: UNetConfig, randomized: Callable) -> None:
    torch.manual_seed(0)
    network = UNet(small_network, sizes=ConditionSizes(augmentation=9)).eval()
    x, c_noise, label = normal(2, 1, 8, 8).float(), torch.tensor([0.1, 0.8]), torch.tensor([0, 2])
    assert network.embed_augmentation is not None
    assert not network.embed_augmentation.weight.any()
    randomized(network)
    told = normal(2, 9).float()
    plain = network(x, c_noise, label)
    assert torch.equal(network(x, c_noise, Conditions(label)), plain)
    assert torch.equal(network(x, c_noise, Conditions(label, torch.zeros(2, 9))), plain)
    assert (network(x, c_noise, Conditions(label, told)) - plain).abs().max() > 1e-3


def test_coordinates_are_two_more_channels_of_the_input(small_network: UNetConfig, randomized: Callable) -> None:
    torch.manual_seed(0)
    config = replace(small_network, patch=2)
    network, plain = UNet(config, sizes=ConditionSizes(coordinates=True)).eval(), UNet(config).eval()
    assert network.input_coordinates is not None
    assert not network.input_coordinates.conv.weight.any()
    randomized(network)
    x, where = normal(2, 1, 8, 8).float(), normal(2, 2, 8, 8).float()
    with torch.no_grad():
        together = torch.cat([network.input.weight, network.input_coordinates.conv.weight], dim=1)
        expected = F.conv2d(F.pixel_unshuffle(torch.cat([x, where], dim=1), 2), together, network.input.bias, padding=1)
        found = network.input(F.pixel_unshuffle(x, 2)) + network.input_coordinates(where)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        whole, c_noise = coordinates(8, 8).expand(2, -1, -1, -1), torch.tensor([0.1, 0.8])
        torch.testing.assert_close(network(x, c_noise, Conditions(coordinates=whole)), network(x, c_noise))
        assert (network(x, c_noise, Conditions(coordinates=where)) - network(x, c_noise)).abs().max() > 1e-3
        nowhere = Conditions(coordinates=torch.zeros_like(where))
        weights = {name: each for name, each in network.state_dict().items() if "coordinates" not in name}
        plain.load_state_dict(weights)
        assert torch.equal(network(x, c_noise, nowhere), plain(x, c_noise))


@pytest.mark.parametrize("scale_shift_norm", [False, True])
def test_gradients_reach_every_parameter(
    scale_shift_norm: bool, small_network: UNetConfig, random_unet: Callable
) -> None:
    network = random_unet(replace(small_network, scale_shift_norm=scale_shift_norm))
    output = network(normal(4, 1, 8, 8), torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0, 1, 2, -1]))
    output.square().sum().backward()
    without_gradient = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without_gradient == []
    assert network.embed_label.weight.grad.any(dim=1).all()  # Every label's row, and that of no label.


def test_memory_format_changes_nothing(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(small_network)
    x, c_noise = normal(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    expected = network(x, c_noise)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last), c_noise), expected)


def test_edge_parameters_are_input_output_and_label_embedding(small_network: UNetConfig) -> None:
    def edges(network: UNet) -> set[str]:
        names = {id(p): name for name, p in network.named_parameters()}
        return {names[id(p)] for p in network.edge_parameters()}

    without_labels = {f"{layer}.{kind}" for layer in ("input", "output.0", "output.2") for kind in ("weight", "bias")}
    assert edges(UNet(replace(small_network, classes=0))) == without_labels
    assert edges(UNet(small_network)) == without_labels | {"embed_label.weight"}
