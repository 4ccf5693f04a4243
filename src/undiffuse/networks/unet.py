"""The U-Net of DDPM (Ho et al. 2020, appendix B) and of Improved DDPM (Nichol & Dhariwal 2021), from one config."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from undiffuse.networks.classes import ClassChange
from undiffuse.networks.conditions import (
    NONE_KEPT,
    CategoryEmbedding,
    ChannelsInput,
    ImageInput,
    KeptColumns,
    NumberEmbedding,
    adapted_conditions,
)
from undiffuse.networks.layers import (
    BlockConfig,
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
from undiffuse.networks.network import NetworkConfig
from undiffuse.utils.conditions import NO_MORE, Condition, Conditions, ConditionSizes, as_conditions, coordinates
from undiffuse.utils.text import plural, size_text
from undiffuse.utils.validation import STRICT

Positive = Annotated[int, Field(ge=1)]
Few = Annotated[int, Field(ge=1, le=1024)]
"""What would be built before the weights could show that there are not so many."""
PositiveFloat = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class UNetConfig(NetworkConfig):
    """The U-Net's shape. The defaults are Ho et al.'s CIFAR-10 setting: 35.7 M parameters."""

    channels: Annotated[int, Field(ge=2, le=2**16, multiple_of=2)] = 128
    """Feature channels at the finest level; even, because the noise embedding takes them in pairs."""
    multipliers: Annotated[tuple[Few, ...], Field(min_length=1, max_length=16)] = (1, 2, 2, 2)
    """Channels of each level, in multiples of `channels`; every level halves height and width."""
    blocks: Few = 2
    """Residual blocks per level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Self-attention at the levels where the feature map's longer side, in feature pixels, is one of these."""
    heads: Positive = 1
    """Attention heads."""
    groups: Positive = 32
    """Groups of the group normalization."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of features dropped in each residual block in training."""
    scale_shift_norm: bool = False
    """Noise level and label scale and shift the normalization (Improved DDPM), rather than being added."""
    patch: Positive = 1
    """Fold patch x patch pixels into channels first: 2 quarters the cost at some loss of detail."""
    head_channels: Annotated[int, Field(ge=0)] = 0
    """If above 0, channels per attention head; each level's number of heads follows from it, and `heads` is ignored."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the variance in each normalization."""
    frequency_shift: Annotated[int, Field(ge=0)] = 0
    """The noise level is embedded at the frequencies 10000^(-i / (channels / 2 - shift)): 1 for DDPM's own weights."""
    time_scale: PositiveFloat = 1.0
    """Factor on c_noise before it is embedded; 1000 / T for Improved DDPM's own weights."""
    asymmetric_downsampling: bool = False
    """Pad only on the right and at the bottom where the feature map is halved, as DDPM's own weights need."""
    resampling: Literal["convolution", "residual", "none"] = "convolution"
    """What halves and doubles the feature map: a convolution, a residual block (EDM), or nothing with weights."""
    skip_scale: PositiveFloat = 1.0
    """Factor on each sum of a shortcut and its branch: EDM's square root of 1/2 keeps the variance."""
    sparse_up_attention: bool = False
    """On the way up, self-attention only after the last block of a level (EDM)."""
    input_multiplier: Annotated[int, Field(ge=0)] = 0
    """Channels after the first convolution, in multiples of `channels`; 0: those of the first level. 1 for EDM."""

    def __post_init__(self):
        stride = self.patch * 2 ** (len(self.multipliers) - 1)
        if any(side < stride or side % stride for side in self.size):
            height, width = (max(round(side / stride), 1) * stride for side in self.size)
            raise ValueError(
                f"size {size_text(self.size)} does not fit this network, which reduces it to 1/{stride}: choose height "
                f"and width that are multiples of {stride}, for example {size_text((height, width))}."
            )
        if self.asymmetric_downsampling and self.resampling != "convolution":
            raise ValueError(
                f"asymmetric_downsampling needs resampling convolution, not {self.resampling}: change one of the two."
            )
        if self.frequency_shift >= self.channels // 2:
            raise ValueError(f"frequency_shift {self.frequency_shift} is too large: give less than channels / 2.")
        for channels in {self.channels * m for m in (*self.multipliers, self.input_multiplier)}:
            if channels % self.groups or channels % (self.head_channels or self.heads):
                heads = f"heads of {self.head_channels}" if self.head_channels else plural(self.heads, "head")
                raise ValueError(
                    f"{channels} channels cannot be split into {plural(self.groups, 'group')} and {heads}: "
                    "choose channels that are multiples of both."
                )

    def resized(self, size: tuple[int, int]) -> NetworkConfig:
        """The same layers for another size: self-attention stays at the levels where it is."""
        ratio = max(size) / max(self.size)
        levels = tuple(round(side * ratio) for side in self.attention_resolutions)
        return replace(super().resized(size), attention_resolutions=levels)

    def adapted(
        self,
        weights: Mapping[str, Tensor],
        classes: ClassChange,
        sizes: ConditionSizes = NO_MORE,
        kept: KeptColumns = NONE_KEPT,
    ) -> dict[str, Tensor]:
        """As `NetworkConfig.adapted`: rows of the label embedding, which is added to that of the noise level.

        A first table is zero, and of one that goes the bias before it keeps what "no label" added. Parts for other
        conditions begin without effect, and go without a trace: what is missing adds nothing.
        """
        table, bias = "embed_label.weight", "embed.2.bias"
        adapted = adapted_conditions(weights, sizes, kept, self.patch)
        if classes.before and classes.after:
            adapted[table] = classes.table(weights[table])
        elif classes.after:
            adapted[table] = weights[bias].new_zeros(self.classes + 1, len(weights[bias]))
        elif classes.before:
            adapted[bias] = weights[bias] + classes.unlabeled(adapted.pop(table))
        return adapted

    def build(self, learned_variance: bool = False) -> nn.Module:
        """The U-Net, untrained; its output is zero."""
        return UNet(self, learned_variance)

    def build_for(self, sizes: ConditionSizes, learned_variance: bool = False) -> nn.Module:
        """The U-Net that takes these conditions too; each begins without any effect."""
        return UNet(self, learned_variance, sizes)

    def heads_of(self, channels: int) -> int:
        """The number of heads of self-attention with this many channels."""
        return channels // self.head_channels if self.head_channels else self.heads


class Stage(nn.ModuleList):
    """Layers one after another; the residual blocks also receive the embedding."""

    def forward(self, h: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b c2 h2 w2"]:
        for layer in self:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        return h


class LayerFactory:
    """Makes the layers of a config's U-Net."""

    def __init__(self, config: UNetConfig):
        self.config = config
        self.block = BlockConfig(
            dim_embedding=4 * config.channels,
            groups=config.groups,
            dropout=config.dropout,
            scale_shift_norm=config.scale_shift_norm,
            norm_eps=config.norm_eps,
            skip_scale=config.skip_scale,
        )

    def residual(self, channels_in: int, width: int, resample: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
        return ResidualBlock(channels_in, width, self.block, resample)

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

    With `learned_variance` it returns twice the channels: F, then what interpolates the variance between its two bounds
    (Nichol & Dhariwal 2021, Eq. 15).
    """

    def __init__(self, config: UNetConfig, learned_variance: bool = False, sizes: ConditionSizes = NO_MORE):
        super().__init__()
        self.config = config
        make = LayerFactory(config)
        widths = [config.channels * m for m in config.multipliers]
        attends = [
            max(config.size) // (config.patch * 2**i) in config.attention_resolutions for i in range(len(widths))
        ]
        levels = list(zip(widths, attends, strict=True))
        pixel_channels = config.image_channels * config.patch**2
        dim = 4 * config.channels

        self.embed = nn.Sequential(nn.Linear(config.channels, dim), nn.SiLU(), nn.Linear(dim, dim))
        # One more row than classes: the last is "no label".
        self.embed_label = nn.Embedding(config.classes + 1, dim) if config.classes else None
        # Without a bias, so that zeros, an image left as it is, are the same as None.
        augmentation = nn.Linear(sizes.augmentation, dim, bias=False) if sizes.augmentation else None
        self.embed_augmentation = None if augmentation is None else zeroed(augmentation)
        self.embed_numbers = NumberEmbedding(sizes.numbers, dim) if sizes.numbers else None
        self.embed_categories = CategoryEmbedding(sizes.categories, dim) if sizes.categories else None

        stem = config.channels * (config.input_multiplier or config.multipliers[0])
        self.input = conv3x3(pixel_channels, stem)
        self.input_coordinates = ChannelsInput(2, config.patch, stem) if sizes.coordinates else None
        self.input_image = ImageInput(sizes.image_channels, config.patch, stem) if sizes.image_channels else None
        skips = [stem]
        self.down = nn.ModuleList()
        for level, (width, attending) in enumerate(levels):
            for _ in range(config.blocks):
                self.down.append(make.stage(skips[-1], width, attending))
                skips.append(width)
            if level < len(levels) - 1:
                self.down.append(Stage([make.down(width)]))
                skips.append(width)

        bottom = widths[-1]
        self.middle = Stage([make.residual(bottom, bottom), make.attention(bottom), make.residual(bottom, bottom)])

        below = bottom
        self.up = nn.ModuleList()
        for level, (width, attending) in reversed(list(enumerate(levels))):
            for block in range(config.blocks + 1):
                last = block == config.blocks
                layers = make.stage(below + skips.pop(), width, attending and (last or not config.sparse_up_attention))
                below = width
                if level > 0 and last:
                    layers.append(make.up(width))
                self.up.append(layers)

        self.output = nn.Sequential(
            nn.GroupNorm(config.groups, below, config.norm_eps),
            nn.SiLU(),
            zeroed(conv3x3(below, pixel_channels * (2 if learned_variance else 1))),
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], c_noise: Float[Tensor, " b"], label: Condition = None
    ) -> Float[Tensor, "b c_out h w"]:
        told = as_conditions(label)
        embedding = F.silu(self._embedding(c_noise, told))
        h = self.input(F.pixel_unshuffle(x, self.config.patch))
        for features in self._more_inputs(x, told):
            h = h + features
        skips = [h]
        for stage in self.down:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        return F.pixel_shuffle(self.output(h), self.config.patch)

    def edge_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are not hidden: of the inputs, the output and the embeddings of conditions.

        Muon is for hidden matrices (Jordan et al. 2024), so AdamW trains these.
        """
        inputs = [self.input, self.input_coordinates, self.input_image]
        edges = [*inputs, self.output, self.embed_label, *self._embeddings()]
        return chain.from_iterable(module.parameters() for module in edges if module is not None)

    def blocks(self) -> Iterator[nn.Module]:
        """The residual blocks and the self-attentions, which hold nearly all features and weights."""
        return (module for module in self.modules() if isinstance(module, ResidualBlock | SelfAttention))

    def _embeddings(self) -> list[nn.Module | None]:
        """Of the augmentation, the numbers and the categories, in the order of `Conditions`."""
        return [self.embed_augmentation, self.embed_numbers, self.embed_categories]

    def _more_inputs(self, x: Tensor, told: Conditions) -> Iterator[Float[Tensor, "b d h2 w2"]]:
        """What further channels of the input add to the features of the first convolution."""
        if self.input_coordinates is not None:
            where = told.coordinates
            yield self.input_coordinates(coordinates(*x.shape[2:], x.device)[None] if where is None else where)
        if self.input_image is not None and told.image is not None:
            yield self.input_image(told.image)

    def _embedding(self, c_noise: Tensor, told: Conditions) -> Float[Tensor, "b d"]:
        label, *more, _, _ = told
        position = self.config.time_scale * c_noise
        embedding = self.embed(sinusoidal_embedding(position, self.config.channels, shift=self.config.frequency_shift))
        for embed, condition in zip(self._embeddings(), more, strict=True):
            if embed is not None and condition is not None:
                embedding = embedding + embed(condition)
        if self.embed_label is None:
            return embedding
        if label is None:
            label = torch.full(c_noise.shape, -1, device=c_noise.device)
        return embedding + self.embed_label(torch.where(label < 0, self.config.classes, label))
