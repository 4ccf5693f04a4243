"""The U-Net of DDPM (Ho et al. 2020, appendix B) and of Improved DDPM (Nichol & Dhariwal 2021), from one config."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from undiffuse.networks.layers import (
    Downsample,
    ResidualBlock,
    SelfAttention,
    Upsample,
    conv3x3,
    sinusoidal_embedding,
    zeroed,
)


@dataclass(frozen=True)
class UNetConfig:
    """The U-Net's shape. The defaults are Ho et al.'s CIFAR-10 setting: 35.7 M parameters."""

    size: tuple[int, int] = (32, 32)
    """Height and width of the pictures, in pixels."""
    image_channels: int = 3
    """1 for grayscale, 3 for RGB, 4 for RGBA."""
    classes: int = 0
    """Number of labels the network is told; 0 trains without labels."""
    channels: int = 128
    """Feature channels at the finest level."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Channels of each level, in multiples of `channels`; every level halves height and width."""
    blocks: int = 2
    """Residual blocks a level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Self-attention where the feature map's longer side, in feature pixels, is one of these."""
    heads: int = 1
    """Attention heads."""
    groups: int = 32
    """Groups of the group normalization."""
    dropout: float = 0.1
    """Share of features dropped in each residual block while training."""
    scale_shift_norm: bool = False
    """Let noise level and label scale and shift the normalization (Improved DDPM) rather than be added."""
    patch: int = 1
    """Fold patch x patch pixels into channels first: 2 quarters the cost at some loss of detail."""

    def __post_init__(self):
        for name in ("image_channels", "channels", "blocks", "heads", "groups", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is too few: take at least 1.")
        if min(self.multipliers, default=0) < 1:
            raise ValueError(f"multipliers {self.multipliers} are none: give each level one of at least 1.")
        if self.classes < 0:
            raise ValueError(f"classes {self.classes} is negative: 0 trains without labels.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is out of range: give from 0 to below 1.")
        if self.channels % 2:
            raise ValueError(f"channels {self.channels} is odd: the noise embedding takes them in pairs.")
        stride = self.patch * 2 ** (len(self.multipliers) - 1)
        if any(side < stride or side % stride for side in self.size):
            raise ValueError(
                f"size {self.size[0]}x{self.size[1]} does not fit this network, which halves it to "
                f"1/{stride}: choose height and width that are multiples of {stride}, such as {self._fitting(stride)}."
            )
        for channels in {self.channels * m for m in self.multipliers}:
            if channels % self.groups or channels % self.heads:
                raise ValueError(
                    f"{channels} channels cannot be split in {self.groups} groups and {self.heads} heads: "
                    "choose channels that are multiples of both."
                )

    def _fitting(self, stride: int) -> str:
        return "x".join(str(max(round(side / stride), 1) * stride) for side in self.size)


class Stage(nn.ModuleList):
    """Layers in a row, of which the residual blocks are told the embedding."""

    def forward(self, h: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b c2 h2 w2"]:
        for layer in self:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        return h


class UNet(nn.Module):
    """F(x, c_noise, label): x `(b, c, h, w)`, c_noise `(b,)`, label `(b,)` integers, -1 for none. Returns x's shape."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        widths = [config.channels * m for m in config.multipliers]
        sides = [max(config.size) // (config.patch * 2**level) for level in range(len(widths))]
        levels = list(zip(widths, sides, strict=True))
        pixel_channels = config.image_channels * config.patch**2
        dim = 4 * config.channels
        residual = partial(
            ResidualBlock,
            dim_embedding=dim,
            groups=config.groups,
            dropout=config.dropout,
            scale_shift_norm=config.scale_shift_norm,
        )
        attention = partial(SelfAttention, heads=config.heads, groups=config.groups)

        def stage(channels_in: int, width: int, side: int) -> Stage:
            attends = side in config.attention_resolutions
            return Stage([residual(channels_in, width)] + ([attention(width)] if attends else []))

        self.embed = nn.Sequential(nn.Linear(config.channels, dim), nn.SiLU(), nn.Linear(dim, dim))
        # One row more than there are classes: the last is "no label".
        self.embed_label = nn.Embedding(config.classes + 1, dim) if config.classes else None

        self.input = conv3x3(pixel_channels, widths[0])
        skips = [widths[0]]
        self.down = nn.ModuleList()
        for level, (width, side) in enumerate(levels):
            for _ in range(config.blocks):
                self.down.append(stage(skips[-1], width, side))
                skips.append(width)
            if level < len(levels) - 1:
                self.down.append(Stage([Downsample(width)]))
                skips.append(width)

        bottom = widths[-1]
        self.middle = Stage([residual(bottom, bottom), attention(bottom), residual(bottom, bottom)])

        below = bottom
        self.up = nn.ModuleList()
        for level, (width, side) in reversed(list(enumerate(levels))):
            for block in range(config.blocks + 1):
                layers = stage(below + skips.pop(), width, side)
                below = width
                if level > 0 and block == config.blocks:
                    layers.append(Upsample(width))
                self.up.append(layers)

        self.output = nn.Sequential(
            nn.GroupNorm(config.groups, below), nn.SiLU(), zeroed(conv3x3(below, pixel_channels))
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], c_noise: Float[Tensor, " b"], label: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        embedding = F.silu(self._embedding(c_noise, label))
        # channels_last: on a CPU a training step of convolutions is faster in it.
        h = self.input(F.pixel_unshuffle(x, self.config.patch).contiguous(memory_format=torch.channels_last))
        skips = [h]
        for stage in self.down:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        return F.pixel_shuffle(self.output(h), self.config.patch)

    def _embedding(self, c_noise: Tensor, label: Tensor | None) -> Float[Tensor, "b d"]:
        embedding = self.embed(sinusoidal_embedding(c_noise, self.config.channels))
        if self.embed_label is None:
            return embedding
        if label is None:
            label = torch.full(c_noise.shape, -1, device=c_noise.device)
        return embedding + self.embed_label(torch.where(label < 0, self.config.classes, label))
