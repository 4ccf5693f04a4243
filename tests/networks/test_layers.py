"""The U-Net's layers against their formulas, written another way."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import tensors
from torch import Tensor, nn

from undiffuse.networks.layers import (
    BlockConfig,
    Downsample,
    Dropout,
    ResidualBlock,
    SelfAttention,
    Upsample,
    doubled,
    halved,
    sinusoidal_embedding,
    zeroed,
)

normal = partial(tensors.normal, dtype=torch.float32)

PLAIN = BlockConfig(dim_embedding=16, groups=4)
SCALE_SHIFT = replace(PLAIN, scale_shift_norm=True)

DOT = torch.zeros(3, 3).index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(1.0))
"""The kernel that copies its input."""


def copying(conv: nn.Conv2d) -> None:
    """Makes a convolution the identity."""
    with torch.no_grad():
        conv.weight.copy_(torch.eye(conv.out_channels)[:, :, None, None] * DOT)
        nn.init.zeros_(conv.get_parameter("bias"))


def test_zeroed_returns_the_module_itself_with_zeros() -> None:
    conv = nn.Conv2d(2, 3, 3)
    assert zeroed(conv) is conv
    assert not any(parameter.any() for parameter in conv.parameters())


def test_embedding_is_a_circle_at_each_falling_frequency() -> None:
    positions = [0.0, 0.37, 1.0, 500.5, 999.0]
    embedding = sinusoidal_embedding(torch.tensor(positions), 8)
    for row, position in zip(embedding, positions, strict=True):
        angles = [position / 10000 ** (i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        # float32 keeps an angle of 999 to 6e-5.
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-4)


def test_shift_1_reaches_the_longest_period() -> None:
    angle = 0.5
    embedding = sinusoidal_embedding(torch.tensor([angle]), 8, shift=1)[0]
    for i in range(4):
        assert math.isclose(embedding[i], math.cos(angle / 10000 ** (i / 3)), rel_tol=1e-6)
        assert math.isclose(embedding[4 + i], math.sin(angle / 10000 ** (i / 3)), rel_tol=1e-6)


def test_embedding_inner_products_depend_only_on_distance() -> None:
    a, b, c = sinusoidal_embedding(torch.tensor([3.0, 10.0, 17.0]), 64)
    torch.testing.assert_close(a @ b, b @ c)
    assert a @ b > a @ c


@pytest.mark.parametrize("config", [PLAIN, SCALE_SHIFT])
def test_a_new_residual_block_is_its_shortcut(config: BlockConfig) -> None:
    x, embedding = normal(2, 8, 4, 4), normal(2, 16, seed=1)
    same_width = ResidualBlock(8, 8, config)
    assert torch.equal(same_width(x, embedding), x)
    wider = ResidualBlock(8, 12, config)
    torch.testing.assert_close(wider(x, embedding), wider.skip(x))


def test_plain_block_adds_embedding_to_first_convolution(randomized: Callable) -> None:
    block = randomized(ResidualBlock(8, 12, PLAIN))
    x, embedding = normal(1, 8, 4, 4), normal(1, 16, seed=1)
    expected = block(x, embedding)
    with torch.no_grad():
        block.conv_in.bias.add_(block.embedding(embedding)[0])
        zeroed(block.embedding)
    torch.testing.assert_close(block(x, embedding), expected)


def test_scale_shift_sets_gain_and_bias_of_second_norm(randomized: Callable) -> None:
    block = randomized(ResidualBlock(8, 12, SCALE_SHIFT))
    x, embedding = normal(1, 8, 4, 4), normal(1, 16, seed=1)
    expected = block(x, embedding)
    with torch.no_grad():
        scale, shift = block.embedding(embedding)[0].chunk(2)  # Nichol & Dhariwal 2021, section 3.
        block.norm_out.weight.mul_(1 + scale)
        block.norm_out.bias.mul_(1 + scale).add_(shift)
        zeroed(block.embedding)
    torch.testing.assert_close(block(x, embedding), expected)


def test_resampling_block_resamples_branch_and_shortcut(randomized: Callable) -> None:
    x, embedding = normal(1, 8, 4, 6), normal(1, 16, seed=1)
    for resample, pixels in (
        (halved, F.avg_pool2d(x, 2)),
        (doubled, x.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    ):
        block = ResidualBlock(8, 8, PLAIN, resample)
        weight, bias = block.skip.get_parameter("weight"), block.skip.get_parameter("bias")
        shortcut = torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], pixels) + bias[:, None, None]
        torch.testing.assert_close(block(x, embedding), shortcut)
        randomized(block)
        # The same block without resampling, applied to the resampled input after the normalization.
        h = block.conv_in(resample(F.silu(block.norm_in(x)))) + block.embedding(embedding)[:, :, None, None]
        expected = block.skip(pixels) + block.conv_out(F.silu(block.norm_out(h)))
        torch.testing.assert_close(block(x, embedding), expected)


def test_halved_takes_means_of_four_and_inverts_doubled() -> None:
    x = normal(2, 3, 4, 6)
    torch.testing.assert_close(halved(x)[0, 0, 1, 2], x[0, 0, 2:4, 4:6].mean())
    assert torch.equal(halved(doubled(x)), x)


def test_skip_scale_multiplies_the_sum(randomized: Callable) -> None:
    x, embedding = normal(2, 8, 4, 4), normal(2, 16, seed=1)
    plain, scaled = randomized(ResidualBlock(8, 12, PLAIN)), ResidualBlock(8, 12, replace(PLAIN, skip_scale=0.5))
    scaled.load_state_dict(plain.state_dict())
    assert torch.equal(scaled(x, embedding), plain(x, embedding) / 2)
    attention = randomized(SelfAttention(8, 2, groups=4))
    halving = SelfAttention(8, 2, groups=4, skip_scale=0.5)
    halving.load_state_dict(attention.state_dict())
    assert torch.equal(halving(x), attention(x) / 2)


def test_dropout_acts_only_in_training(randomized: Callable) -> None:
    block = randomized(ResidualBlock(8, 8, replace(PLAIN, dropout=0.5)))
    x, embedding = normal(1, 8, 4, 4), normal(1, 16, seed=1)
    torch.manual_seed(0)
    assert not torch.equal(block(x, embedding), block(x, embedding))
    block.eval()
    assert torch.equal(block(x, embedding), block(x, embedding))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_softmax_formula(heads: int, randomized: Callable) -> None:
    channels, height, width = 8, 2, 3
    attention = randomized(SelfAttention(channels, heads, groups=4)).double()
    x = normal(1, channels, height, width).double()
    pixels = attention.norm(x)[0].reshape(channels, -1).T
    weight, bias = attention.qkv.weight[:, :, 0, 0], attention.qkv.bias
    per_head = channels // heads
    attended = torch.zeros(height * width, channels, dtype=torch.float64)
    for head in range(heads):
        q, k, v = (
            pixels @ weight[rows].T + bias[rows]
            for rows in (slice((3 * head + i) * per_head, (3 * head + i + 1) * per_head) for i in range(3))
        )
        for pixel in range(height * width):
            # Vaswani et al. 2017, Eq. 1.
            scores = torch.stack([q[pixel] @ k[other] for other in range(height * width)]) / math.sqrt(per_head)
            attention_weights = scores.exp() / scores.exp().sum()
            attended[pixel, head * per_head : (head + 1) * per_head] = attention_weights @ v
    projected = attended @ attention.project.weight[:, :, 0, 0].T + attention.project.bias
    torch.testing.assert_close(attention(x), x + projected.T.reshape(1, channels, height, width))


def test_attention_commutes_with_shuffling_pixels(randomized: Callable) -> None:
    attention = randomized(SelfAttention(8, 2, groups=4)).double()
    x = normal(2, 8, 4, 4).double()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def shuffled(pixels: Tensor) -> Tensor:
        return pixels.flatten(2)[:, :, order].view_as(pixels)

    torch.testing.assert_close(attention(shuffled(x)), shuffled(attention(x)))


def test_new_attention_is_the_identity() -> None:
    x = normal(2, 8, 4, 4)
    assert torch.equal(SelfAttention(8, 2, groups=4)(x), x)


def test_downsampling_is_a_convolution_at_every_second_pixel() -> None:
    down, x = Downsample(3), normal(2, 3, 4, 6)
    copying(down.conv)
    torch.testing.assert_close(down(x), x[:, :, ::2, ::2])


def test_asymmetric_downsampling_takes_odd_pixels() -> None:
    down, x = Downsample(3, asymmetric=True), normal(2, 3, 4, 6)
    copying(down.conv)
    torch.testing.assert_close(down(x), x[:, :, 1::2, 1::2])
    with torch.no_grad():
        down.conv.weight.copy_(down.conv.weight.roll((1, 1), dims=(2, 3)))  # The kernel's last tap: bottom right.
    expected = torch.zeros_like(x[:, :, ::2, ::2])
    expected[:, :, :-1, :-1] = x[:, :, 2::2, 2::2]
    torch.testing.assert_close(down(x), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda eps: ResidualBlock(8, 8, replace(SCALE_SHIFT, norm_eps=eps)),
        lambda eps: SelfAttention(8, 2, groups=4, norm_eps=eps),
    ],
)
def test_each_normalization_adds_norm_eps_to_the_variance(make: Callable[[float], nn.Module]) -> None:
    norms = [module for module in make(0.125).modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    x = normal(1, 8, 4, 4)
    groups = x.reshape(1, 4, 32)
    centered = groups - groups.mean(dim=2, keepdim=True)
    expected = (centered / torch.sqrt(centered.square().mean(dim=2, keepdim=True) + 0.125)).reshape(1, 8, 4, 4)
    for norm in norms:
        torch.testing.assert_close(norm(x), expected)


def test_upsampling_is_a_convolution_of_doubled_pixels() -> None:
    up, x = Upsample(3), normal(2, 3, 4, 6)
    copying(up.conv)
    torch.testing.assert_close(up(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.13, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_the_fraction_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 1_000_001  # Not a multiple of four.
    ones = torch.ones(n, dtype=dtype, requires_grad=True)
    dropped = Dropout(p)(ones)
    for lane in range(4):  # Each of the four masks in a number: five standard deviations.
        part = dropped[lane::4] == 0
        assert abs(float(part.double().mean()) - p) <= 5 * math.sqrt(p * (1 - p) / len(part)) + 2**-16
    kept = dropped[dropped != 0]
    assert torch.allclose(kept, torch.tensor(1 / (1 - p)).to(dtype))
    dropped.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, dropped.detach())


def test_dropout_masks_are_independent_of_each_other() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).double().view(-1, 4) - 0.5
    # The product of two fair coins has mean 0 and, over n of them, standard deviation 1 / (4 sqrt(n)).
    bound = 5 / (4 * math.sqrt(len(kept)))
    for i in range(4):
        for j in range(i):
            assert abs(float((kept[:, i] * kept[:, j]).mean())) < bound
    assert abs(float((kept[1:, 0] * kept[:-1, 3]).mean())) < bound


def test_dropout_repeats_with_the_seed() -> None:
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(Dropout(0.3)(torch.ones(10, 10)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
