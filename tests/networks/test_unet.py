"""The U-Net has the paper's size, starts at zero, takes every shape that it accepts, and listens to all it is told."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import tensors
import torch
import torch.nn.functional as F

from undiffuse.networks.unet import UNet, UNetConfig

normal = partial(tensors.normal, dtype=torch.float32)


def test_ho_et_als_cifar10_network_has_35_746_307_parameters() -> None:
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


def test_a_new_network_answers_zero(small_network: UNetConfig) -> None:
    output = UNet(small_network)(normal(3, 1, 8, 8), torch.tensor([0.0, 5.0, 999.0]), torch.tensor([0, 2, -1]))
    assert torch.equal(output, torch.zeros(3, 1, 8, 8))


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (8, 16)), (4, (24, 8))])
def test_every_output_hears_every_channel_and_every_pixel(
    channels: int, size: tuple[int, int], patch: int, small_network: UNetConfig, random_unet: Callable
) -> None:
    network = random_unet(replace(small_network, image_channels=channels, size=size, patch=patch))
    x = normal(1, channels, *size).requires_grad_()
    output = network(x, torch.tensor([1.0]), torch.tensor([0]))
    for channel in range(channels):
        (heard,) = torch.autograd.grad(output[0, channel, -1, 0], x, retain_graph=True)
        assert (heard != 0).all()


def test_a_picture_on_its_side_gives_the_output_on_its_side(small_network: UNetConfig, random_unet: Callable) -> None:
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
def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_does(
    size: tuple[int, int], multipliers: tuple[int, ...], patch: int, small_network: UNetConfig, random_unet: Callable
) -> None:
    shape = replace(small_network, size=(64, 64), multipliers=multipliers, patch=patch)
    with pytest.raises(ValueError, match=f"^size {size[0]}x{size[1]} does not fit") as refusal:
        replace(shape, size=size)
    named = re.search(r"such as (\d+)x(\d+)", str(refusal.value))
    assert named is not None
    fitting = int(named[1]), int(named[2])
    stride = patch * 2 ** (len(multipliers) - 1)
    for side, asked in zip(fitting, size, strict=True):
        assert abs(side - asked) <= stride / 2 or side == stride
    network = random_unet(replace(shape, size=fitting))
    assert network(normal(1, 1, *fitting), torch.ones(1)).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": 5}, "16 channels cannot be split in 5 groups and 2 heads"),
        ({"heads": 3}, "cannot be split in 4 groups and 3 heads"),
        ({"groups": 0}, "groups 0 is too few"),
        ({"heads": 0}, "heads 0 is too few"),
        ({"patch": 0}, "patch 0 is too few"),
        ({"channels": -16}, "channels -16 is too few"),
        ({"blocks": 0}, "blocks 0 is too few"),
        ({"image_channels": 0}, "image_channels 0 is too few"),
        ({"channels": 15, "groups": 3, "heads": 1}, "channels 15 is odd"),
        ({"multipliers": ()}, r"multipliers \(\) are none"),
        ({"multipliers": (1, 0)}, r"multipliers \(1, 0\) are none"),
        ({"classes": -1}, "classes -1 is negative"),
    ],
)
def test_settings_that_make_no_network_are_refused_by_name(
    settings: dict, words: str, small_network: UNetConfig
) -> None:
    with pytest.raises(ValueError, match=words):
        replace(small_network, **settings)


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


def test_pictures_of_a_batch_do_not_hear_each_other(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(small_network)
    x, c_noise, label = normal(3, 1, 8, 8), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, -1])
    together = network(x, c_noise, label)
    for i in range(3):
        alone = network(x[i : i + 1], c_noise[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale_shift_norm", [False, True])
def test_gradients_reach_every_parameter(
    scale_shift_norm: bool, small_network: UNetConfig, random_unet: Callable
) -> None:
    network = random_unet(replace(small_network, scale_shift_norm=scale_shift_norm))
    output = network(normal(4, 1, 8, 8), torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0, 1, 2, -1]))
    output.square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert network.embed_label.weight.grad.any(dim=1).all()  # Every label's row, and that of no label.


def test_the_memory_format_changes_nothing(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(small_network)
    x, c_noise = normal(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    expected = network(x, c_noise)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last), c_noise), expected)
