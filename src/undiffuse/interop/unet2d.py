"""The config of diffusers' UNet2DModel as undiffuse's U-Net config, and the other way round."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from undiffuse.interop.settings import unsupported
from undiffuse.interop.weights import unet_config
from undiffuse.networks.unet import UNetConfig


@dataclass(frozen=True)
class UNet2DSettings:
    """UNet2DModel's settings, with its names and defaults."""

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None


DOWN_BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True}
UP_BLOCKS = {"UpBlock2D": False, "AttnUpBlock2D": True}
"""Whether a level of this type has attention."""

_SHARED = frozenset(
    [
        *("size", "image_channels", "classes", "channels", "multipliers", "blocks", "attention_resolutions", "heads"),
        *("head_channels", "groups", "dropout", "scale_shift_norm", "norm_eps", "frequency_shift"),
        "asymmetric_downsampling",
    ]
)
"""Settings of undiffuse's U-Net that UNet2DModel has too; the others must have their defaults."""

# Setting, its supported values, and what undiffuse's U-Net does.
_FIXED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("center_input_sample", (False,), "does not rescale its input"),
    ("time_embedding_type", ("positional",), "embeds the noise level as sines and cosines of fixed frequencies"),
    ("mid_block_type", ("UNetMidBlock2D",), "has a residual block, attention and a residual block in the middle"),
    ("mid_block_scale_factor", (1,), "does not scale its shortcuts there"),
    ("downsample_padding", (0, 1), "pads by one pixel on all sides, or on the right and at the bottom"),
    ("downsample_type", ("conv",), "halves the feature map by a convolution"),
    ("upsample_type", ("conv",), "doubles the feature map by a convolution"),
    ("act_fn", ("silu", "swish"), "uses SiLU"),
    (
        "resnet_time_scale_shift",
        ("default", "scale_shift"),
        "adds the embedding of the noise level, or scales and shifts by it",
    ),
    ("add_attention", (True,), "has attention in the middle"),
    ("class_embed_type", (None,), "embeds classes with a table"),
)


def network_of(settings: UNet2DSettings, size: tuple[int, int], where: Path) -> UNetConfig:
    """The same network as undiffuse's config, for images of `size`.

    Raises:
        ValueError: undiffuse's U-Net does not support a setting, which is named.
    """
    for name, supported, behavior in _FIXED:
        value = getattr(settings, name)
        if value not in supported:
            raise ValueError(_unsupported(where, name, value, behavior))
    _check_channels(settings, where)
    attends = _attending_levels(settings, where)
    if settings.num_class_embeds is not None and settings.num_class_embeds < 1:
        raise ValueError(
            _unsupported(where, "num_class_embeds", settings.num_class_embeds, "has at least one class, or none (null)")
        )
    return unet_config(
        where,
        size=size,
        image_channels=settings.in_channels,
        classes=settings.num_class_embeds or 0,
        channels=settings.block_out_channels[0],
        multipliers=tuple(width // settings.block_out_channels[0] for width in settings.block_out_channels),
        blocks=settings.layers_per_block,
        attention_resolutions=tuple(max(size) >> level for level, attending in enumerate(attends) if attending),
        head_channels=settings.attention_head_dim or 0,
        groups=settings.norm_num_groups,
        dropout=settings.dropout,
        scale_shift_norm=settings.resnet_time_scale_shift == "scale_shift",
        norm_eps=settings.norm_eps,
        frequency_shift=settings.freq_shift,
        asymmetric_downsampling=settings.downsample_padding == 0,
    )


def settings_of(network: UNetConfig, learned_variance: bool, label_rows: int, where: Path) -> UNet2DSettings:
    """UNet2DModel's settings for undiffuse's network, with `label_rows` rows in the label embedding.

    Raises:
        ValueError: UNet2DModel does not support a setting; the first is named.
    """
    for field in fields(network):
        value = getattr(network, field.name)
        if field.name not in _SHARED and value != field.default:
            raise ValueError(_not_in_unet2d(where, f"network.{field.name} {value}"))
    size, widths = network.size, [network.channels * multiplier for multiplier in network.multipliers]
    attends = [max(size) >> level in network.attention_resolutions for level in range(len(widths))]
    return UNet2DSettings(
        sample_size=size[0] if size[0] == size[1] else size,
        in_channels=network.image_channels,
        out_channels=network.image_channels * (2 if learned_variance else 1),
        freq_shift=network.frequency_shift,
        down_block_types=tuple("AttnDownBlock2D" if attending else "DownBlock2D" for attending in attends),
        up_block_types=tuple("AttnUpBlock2D" if attending else "UpBlock2D" for attending in reversed(attends)),
        block_out_channels=tuple(widths),
        layers_per_block=network.blocks,
        downsample_padding=0 if network.asymmetric_downsampling else 1,
        dropout=network.dropout,
        attention_head_dim=_head_channels(network, attends, where),
        norm_num_groups=network.groups,
        # With scale_shift, the attention in the middle would otherwise have no normalization.
        attn_norm_num_groups=network.groups if network.scale_shift_norm else None,
        norm_eps=network.norm_eps,
        resnet_time_scale_shift="scale_shift" if network.scale_shift_norm else "default",
        num_class_embeds=label_rows or None,
    )


def _head_channels(network: UNetConfig, attends: list[bool], where: Path) -> int | None:
    """Channels per head, the same in every attention layer, or None for one head in each."""
    if not network.head_channels and network.heads == 1:
        return None
    attending = [
        network.multipliers[-1],
        *(m for m, attention in zip(network.multipliers, attends, strict=True) if attention),
    ]
    dims = {network.channels * m // network.heads_of(network.channels * m) for m in attending}
    if len(dims) > 1:
        raise ValueError(_not_in_unet2d(where, f"network.heads {network.heads} on levels of different widths"))
    return dims.pop()


def _check_channels(settings: UNet2DSettings, where: Path) -> None:
    widths, dim = settings.block_out_channels, settings.time_embedding_dim
    if not widths or any(width < 1 or width % widths[0] for width in widths):
        raise ValueError(
            _unsupported(
                where, "block_out_channels", widths, "has multiples of the first level's channels on every level"
            )
        )
    if dim not in (None, 4 * widths[0]):
        raise ValueError(
            _unsupported(
                where, "time_embedding_dim", dim, "embeds the noise level in four times the first level's channels"
            )
        )
    if settings.out_channels not in (settings.in_channels, 2 * settings.in_channels):
        raise ValueError(
            _unsupported(
                where,
                "out_channels",
                settings.out_channels,
                "returns as many channels as it takes, or twice as many for a learned variance",
            )
        )
    # With scale_shift, UNet2DModel leaves this normalization out of the attention in the middle.
    if settings.attn_norm_num_groups is None and settings.resnet_time_scale_shift == "default":
        return
    if settings.attn_norm_num_groups != settings.norm_num_groups:
        groups = settings.attn_norm_num_groups
        raise ValueError(
            _unsupported(where, "attn_norm_num_groups", groups, "has the same number of groups everywhere")
        )


def _attending_levels(settings: UNet2DSettings, where: Path) -> list[bool]:
    """Whether each level has attention, the finest first."""
    for name, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        unknown = next((block for block in getattr(settings, name) if block not in known), None)
        if unknown is not None:
            raise ValueError(_unsupported(where, name, unknown, f"has {' and '.join(known)}"))
    down = [DOWN_BLOCKS[block] for block in settings.down_block_types]
    up = [UP_BLOCKS[block] for block in reversed(settings.up_block_types)]
    if down != up or len(down) != len(settings.block_out_channels):
        up_types = settings.up_block_types
        raise ValueError(_unsupported(where, "up_block_types", up_types, "has the same levels on the way up as down"))
    return down


def _unsupported(where: Path, name: str, value: Any, behavior: str) -> str:
    return unsupported(where, name, value, f"its U-Net {behavior}")


def _not_in_unet2d(where: Path, what: str) -> str:
    return f"{where.absolute()} has {what}, which diffusers' UNet2DModel does not support."
