"""The parts of the U-Net: noise embedding, residual block, self-attention, resampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def zeroed(module: M) -> M:
    """The module with its parameters set to zero, so that a new residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def sinusoidal_embedding(
    position: Float[Tensor, " b"], dim: int, max_period: float = 10000, shift: int = 0
) -> Float[Tensor, "b dim"]:
    """Cosines and sines of `position` at dim / 2 frequencies from 1 to 1 / max_period (Vaswani et al. 2017, 3.5).

    With shift 1 the lowest frequency is 1 / max_period, as in DDPM; with 0 it is one step short of that, as in
    Improved DDPM.
    """
    half = dim // 2
    frequency = torch.exp(
        -math.log(max_period) * torch.arange(half, device=position.device, dtype=torch.float32) / (half - shift)
    )
    angle = position[:, None].to(torch.promote_types(position.dtype, torch.float32)) * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def halved(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Half the height and width: each 2x2 pixels become their mean."""
    return F.avg_pool2d(x, 2)


def doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Twice the height and width: each pixel becomes 2x2."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Dropout(nn.Dropout):
    """torch's dropout, with masks that take a third of the time on a CPU.

    There torch draws one random number after the other. Here each 64-bit number makes four masks of 16 bits, so that
    the probability is rounded to a multiple of 2^-16.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        n = input.numel()
        bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:n]
        kept = bits >= round(2**16 * self.p) - 2**15
        return input * kept.view(input.shape).to(input.dtype).mul_(1 / (1 - self.p))


@dataclass(frozen=True)
class BlockConfig:
    """What all residual blocks of a network have in common."""

    dim_embedding: int
    """Features of the embedding of noise level and label."""
    groups: int
    """Groups of the group normalization."""
    dropout: float = 0.0
    """Fraction of features dropped in training."""
    scale_shift_norm: bool = False
    """Whether the embedding scales and shifts the second normalization, rather than being added."""
    norm_eps: float = 1e-5
    """Added to the variance in each normalization."""
    skip_scale: float = 1.0
    """Factor on the sum of shortcut and branch."""


class ResidualBlock(nn.Module):
    """Two normalized convolutions with a shortcut around them (Ho et al. 2020, appendix B).

    The embedding of noise level and label is added between them or, with `scale_shift_norm`, scales and shifts the
    second normalization (Nichol & Dhariwal 2021, section 3). With `resample` the block halves or doubles the feature
    map before the first convolution and on the shortcut, which then has a projection. `skip_scale` multiplies the sum
    (Song et al. 2021, appendix H).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        config: BlockConfig,
        resample: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.scale_shift_norm = config.scale_shift_norm
        self.skip_scale = config.skip_scale
        self.resample = resample or nn.Identity()
        self.norm_in = nn.GroupNorm(config.groups, channels_in, config.norm_eps)
        self.conv_in = conv3x3(channels_in, channels_out)
        self.embedding = nn.Linear(config.dim_embedding, (2 if config.scale_shift_norm else 1) * channels_out)
        self.norm_out = nn.GroupNorm(config.groups, channels_out, config.norm_eps)
        self.dropout = Dropout(config.dropout) if config.dropout else nn.Identity()
        self.conv_out = zeroed(conv3x3(channels_out, channels_out))
        projects = resample is not None or channels_in != channels_out
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if projects else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b k h2 w2"]:
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        e = self.embedding(embedding)[:, :, None, None]
        if self.scale_shift_norm:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h + e)
        h = self.skip(self.resample(x)) + self.conv_out(self.dropout(F.silu(h)))
        return h if self.skip_scale == 1 else h * self.skip_scale


class SelfAttention(nn.Module):
    """Every pixel of the feature map attends to every other (Ho et al. 2020, appendix B)."""

    def __init__(self, channels: int, heads: int, groups: int, norm_eps: float = 1e-5, skip_scale: float = 1.0):
        super().__init__()
        self.heads = heads
        self.skip_scale = skip_scale
        self.norm = nn.GroupNorm(groups, channels, norm_eps)
        # Each head's query, key and value are adjacent, as in Improved DDPM's released weights.
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, self.heads, 3 * c // self.heads, height * width)
        q, k, v = qkv.transpose(2, 3).chunk(3, dim=3)
        attended = F.scaled_dot_product_attention(q, k, v)
        h = x + self.project(attended.transpose(2, 3).reshape(b, c, height, width))
        return h if self.skip_scale == 1 else h * self.skip_scale


class Downsample(nn.Module):
    """A convolution at every second pixel: centered on the even pixels or, if `asymmetric`, on the odd ones.

    TensorFlow's "same" padding does the latter, so DDPM's released weights were trained with it.
    """

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        # One pixel of padding, on the right and at the bottom only.
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)


class Upsample(nn.Module):
    """A convolution of the feature map at twice its height and width."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(doubled(x))
