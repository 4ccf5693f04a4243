"""The U-Net of DDPM (Ho et al. 2020, appendix B) and of Improved DDPM (Nichol & Dhariwal 2021), from one config."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
    doubled,
    halved,
    sinusoidal_embedding,
    zeroed,
)


@dataclass(frozen=True)
class UNetConfig:
    """The U-Net's shape. The defaults are Ho et al.'s CIFAR-10 setting: 35.7 M parameters."""

    size: tuple[int, int] = (32, 32)
    """Height and width of the images, in pixels."""
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
    head_channels: int = 0
    """If above 0, channels of an attention head, whose number then follows from each level's channels, not `heads`."""
    norm_eps: float = 1e-5
    """Added to the variance in each normalization."""
    frequency_shift: int = 0
    """The noise level is embedded at the frequencies 10000^(-i / (channels / 2 - shift)): 1 for DDPM's own weights."""
    time_scale: float = 1.0
    """What the network is told of the noise level is multiplied by this; 1000 / T for Improved DDPM's own weights."""
    asymmetric_downsampling: bool = False
    """Pad right and below alone where the feature map is halved, as DDPM's own weights need."""
    resampling: Literal["convolution", "residual", "none"] = "convolution"
    """What halves and doubles the feature map: a convolution, a residual block (EDM), or nothing with weights."""
    skip_scale: float = 1.0
    """Each sum of a shortcut and its branch is multiplied by this: EDM's square root of 1/2 keeps its variance."""
    sparse_up_attention: bool = False
    """On the way up, self-attention after the last block of a level alone (EDM)."""
    input_multiplier: int = 0
    """Channels after the first convolution, in multiples of `channels`; 0: those of the first level. 1 for EDM."""

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
        for name in ("norm_eps", "time_scale", "skip_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is out of range: give more than 0.")
        for name in ("head_channels", "input_multiplier"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative: 0 leaves it open.")
        if self.asymmetric_downsampling and self.resampling != "convolution":
            raise ValueError(f"asymmetric_downsampling needs resampling convolution, which {self.resampling} is not.")
        if not 0 <= self.frequency_shift < self.channels // 2:
            raise ValueError(
                f"frequency_shift {self.frequency_shift} is out of range: give from 0 to below {self.channels // 2}."
            )
        for channels in {self.channels * m for m in (*self.multipliers, self.input_multiplier)}:
            if channels % self.groups or channels % (self.head_channels or self.heads):
                heads = f"heads of {self.head_channels}" if self.head_channels else f"{self.heads} heads"
                raise ValueError(
                    f"{channels} channels cannot be split in {self.groups} groups and {heads}: "
                    "choose channels that are multiples of both."
                )

    def heads_of(self, channels: int) -> int:
        """How many heads an attention over this many channels has."""
        return channels // self.head_channels if self.head_channels else self.heads

    def _fitting(self, stride: int) -> str:
        return "x".join(str(max(round(side / stride), 1) * stride) for side in self.size)


class Stage(nn.ModuleList):
    """Layers in a row, of which the residual blocks are told the embedding."""

    def forward(self, h: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b c2 h2 w2"]:
        for layer in self:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        return h


@dataclass(frozen=True)
class Parts:
    """The layers that a config's U-Net is made of."""

    config: UNetConfig

    def residual(self, channels_in: int, width: int, resample: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
        c = self.config
        return ResidualBlock(
            channels_in,
            width,
            dim_embedding=4 * c.channels,
            groups=c.groups,
            dropout=c.dropout,
            scale_shift_norm=c.scale_shift_norm,
            norm_eps=c.norm_eps,
            skip_scale=c.skip_scale,
            resample=resample,
        )

    def attention(self, width: int) -> nn.Module:
        c = self.config
        return SelfAttention(width, c.heads_of(width), c.groups, c.norm_eps, c.skip_scale)

    def stage(self, channels_in: int, width: int, attends: bool) -> Stage:
        return Stage([self.residual(channels_in, width)] + ([self.attention(width)] if attends else []))

    def down(self, width: int) -> nn.Module:
        """Halves the feature map."""
        choices = {
            "convolution": lambda: Downsample(width, self.config.asymmetric_downsampling),
            "residual": lambda: self.residual(width, width, halved),
            "none": lambda: nn.AvgPool2d(2),
        }
        return choices[self.config.resampling]()

    def up(self, width: int) -> nn.Module:
        """Doubles the feature map."""
        choices = {
            "convolution": lambda: Upsample(width),
            "residual": lambda: self.residual(width, width, doubled),
            "none": lambda: nn.Upsample(scale_factor=2, mode="nearest"),
        }
        return choices[self.config.resampling]()


class UNet(nn.Module):
    """F(x, c_noise, label): x `(b, c, h, w)`, c_noise `(b,)`, label `(b,)` integers, -1 for none. Returns x's shape.

    With `learned_variance` it returns twice the channels: F, then where the variance lies between its two bounds
    (Nichol & Dhariwal 2021, Eq. 15).
    """

    def __init__(self, config: UNetConfig, learned_variance: bool = False):
        super().__init__()
        self.config = config
        parts = Parts(config)
        widths = [config.channels * m for m in config.multipliers]
        attends = [
            max(config.size) // (config.patch * 2**i) in config.attention_resolutions for i in range(len(widths))
        ]
        levels = list(zip(widths, attends, strict=True))
        pixel_channels = config.image_channels * config.patch**2
        dim = 4 * config.channels

        self.embed = nn.Sequential(nn.Linear(config.channels, dim), nn.SiLU(), nn.Linear(dim, dim))
        # One row more than there are classes: the last is "no label".
        self.embed_label = nn.Embedding(config.classes + 1, dim) if config.classes else None

        stem = config.channels * (config.input_multiplier or config.multipliers[0])
        self.input = conv3x3(pixel_channels, stem)
        skips = [stem]
        self.down = nn.ModuleList()
        for level, (width, attending) in enumerate(levels):
            for _ in range(config.blocks):
                self.down.append(parts.stage(skips[-1], width, attending))
                skips.append(width)
            if level < len(levels) - 1:
                self.down.append(Stage([parts.down(width)]))
                skips.append(width)

        bottom = widths[-1]
        self.middle = Stage([parts.residual(bottom, bottom), parts.attention(bottom), parts.residual(bottom, bottom)])

        below = bottom
        self.up = nn.ModuleList()
        for level, (width, attending) in reversed(list(enumerate(levels))):
            for block in range(config.blocks + 1):
                last = block == config.blocks
                layers = parts.stage(below + skips.pop(), width, attending and (last or not config.sparse_up_attention))
                below = width
                if level > 0 and last:
                    layers.append(parts.up(width))
                self.up.append(layers)

        self.output = nn.Sequential(
            nn.GroupNorm(config.groups, below, config.norm_eps),
            nn.SiLU(),
            zeroed(conv3x3(below, pixel_channels * (2 if learned_variance else 1))),
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], c_noise: Float[Tensor, " b"], label: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c_out h w"]:
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
        position = self.config.time_scale * c_noise
        embedding = self.embed(sinusoidal_embedding(position, self.config.channels, shift=self.config.frequency_shift))
        if self.embed_label is None:
            return embedding
        if label is None:
            label = torch.full(c_noise.shape, -1, device=c_noise.device)
        return embedding + self.embed_label(torch.where(label < 0, self.config.classes, label))
