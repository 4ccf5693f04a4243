"""With a paper's settings our U-Net has the paper's parameters, counted here from the published structure."""

import math

import torch
from torch import nn

from undiffuse.networks.unet import UNet, UNetConfig


def parameters_of(config: UNetConfig, learned_variance: bool = False) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNet(config, learned_variance).parameters())


def conv(channels_in: int, channels_out: int, side: int = 3) -> int:
    return channels_in * channels_out * side**2 + channels_out


def linear(features_in: int, features_out: int) -> int:
    return features_in * features_out + features_out


def norm(channels: int) -> int:
    return 2 * channels


def attention(channels: int) -> int:
    return norm(channels) + conv(channels, 3 * channels, 1) + conv(channels, channels, 1)


def scale_shift_block(channels_in: int, channels_out: int) -> int:
    """Improved DDPM's: the embedding of 512 features gives a scale and a shift."""
    shortcut = conv(channels_in, channels_out, 1) if channels_in != channels_out else 0
    first = norm(channels_in) + conv(channels_in, channels_out)
    second = norm(channels_out) + conv(channels_out, channels_out)
    return first + linear(512, 2 * channels_out) + second + shortcut


def test_improved_ddpm_cifar10_has_52_546_438_parameters() -> None:
    block = scale_shift_block
    # Nichol & Dhariwal 2021: 128, 256, 256, 256 channels at 32, 16, 8, 4 pixels, three blocks each, attention with four
    # heads at 16 and 8, scale-shift normalization, and three channels more for the learned variance.
    expected = linear(128, 512) + linear(512, 512) + conv(3, 128)
    expected += 3 * block(128, 128) + conv(128, 128)
    expected += block(128, 256) + 2 * block(256, 256) + 3 * attention(256) + conv(256, 256)
    expected += 3 * block(256, 256) + 3 * attention(256) + conv(256, 256)
    expected += 3 * block(256, 256)
    expected += 2 * block(256, 256) + attention(256)
    # Four blocks a level on the way up; the first skip of a level is the one of the convolution that halves it.
    expected += 4 * block(512, 256) + conv(256, 256)
    expected += 4 * block(512, 256) + 4 * attention(256) + conv(256, 256)
    expected += 3 * block(512, 256) + block(256 + 128, 256) + 4 * attention(256) + conv(256, 256)
    expected += block(256 + 128, 128) + 3 * block(128 + 128, 128)
    expected += norm(128) + conv(128, 6)

    improved = UNetConfig(blocks=3, attention_resolutions=(16, 8), heads=4, dropout=0.3, scale_shift_norm=True)
    assert parameters_of(improved, learned_variance=True) == expected == 52_546_438


def test_normalizations_have_32_groups_as_in_all_these_networks() -> None:
    with torch.device("meta"):
        norms = [each for each in UNet(UNetConfig()).modules() if isinstance(each, nn.GroupNorm)]
    assert norms
    assert {norm.num_groups for norm in norms} == {32}


def test_edm_cifar10_has_55_7_million_parameters() -> None:
    def block(channels_in: int, channels_out: int, resampled: bool = False) -> int:
        shortcut = conv(channels_in, channels_out, 1) if resampled or channels_in != channels_out else 0
        first = norm(channels_in) + conv(channels_in, channels_out)
        return first + linear(512, channels_out) + norm(channels_out) + conv(channels_out, channels_out) + shortcut

    # Karras et al. 2022, table 7 and the released ddpmpp configuration: 256 channels at 32, 16, 8 pixels after a first
    # convolution to 128, four blocks each, attention at 16 pixels, residual blocks between the levels.
    encoder = conv(3, 128)
    encoder += block(128, 256) + 3 * block(256, 256)
    encoder += block(256, 256, resampled=True) + 4 * (block(256, 256) + attention(256))
    encoder += block(256, 256, resampled=True) + 4 * block(256, 256)
    decoder = 2 * block(256, 256) + attention(256)
    decoder += 5 * block(512, 256) + block(256, 256, resampled=True)
    decoder += 5 * block(512, 256) + attention(256) + block(256, 256, resampled=True)
    decoder += 4 * block(512, 256) + block(256 + 128, 256)
    decoder += norm(256) + conv(256, 3)
    expected = linear(128, 512) + linear(512, 512) + encoder + decoder

    edm = UNetConfig(
        channels=128,
        multipliers=(2, 2, 2),
        blocks=4,
        attention_resolutions=(16,),
        dropout=0.13,
        norm_eps=1e-6,
        frequency_shift=1,
        resampling="residual",
        skip_scale=math.sqrt(0.5),
        sparse_up_attention=True,
        input_multiplier=1,
    )
    assert parameters_of(edm) == expected
    # The released network is also conditioned on the nine numbers of its augmentation, added to the 128 features of the
    # noise level before the embedding; ours is not. (With classes it adds them there too, by a layer of 10 x 128 + 128
    # parameters; ours has a table of 11 x 512, whose rows are added after the embedding.)
    assert expected + 9 * 128 == 55_733_891


def test_flow_matching_cifar10_has_55_676_419_parameters() -> None:
    block = scale_shift_block
    # The example of the flow_matching library (FID 2.07): EDM's widths with Improved DDPM's blocks, attention at 16
    # pixels, and nothing with weights between the levels.
    expected = linear(128, 512) + linear(512, 512) + conv(3, 256)
    expected += 12 * block(256, 256) + 4 * attention(256)
    expected += 2 * block(256, 256) + attention(256)
    expected += 15 * block(512, 256) + 5 * attention(256)
    expected += norm(256) + conv(256, 3)

    flow = UNetConfig(
        channels=128,
        multipliers=(2, 2, 2),
        blocks=4,
        attention_resolutions=(16,),
        dropout=0.3,
        scale_shift_norm=True,
        resampling="none",
    )
    assert parameters_of(flow) == expected == 55_676_419
