"""Improved DDPM's released weights (openai/improved-diffusion): the config is inferred from their shapes."""

import re
from pathlib import Path

import torch
from torch import Tensor

from undiffuse.interop.weights import network_shapes, rename_tensors, unet_config
from undiffuse.networks.unet import UNetConfig

GROUPS = 32
"""Of every group normalization in that program."""

_LAYERS = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "embedding": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
    "norm": "norm",
    "qkv": "qkv",
    "project": "proj_out",
    "conv": "conv",
}


def is_openai(tensors: dict[str, Tensor]) -> bool:
    return "input_blocks.0.0.weight" in tensors


def from_openai(
    tensors: dict[str, Tensor], size: tuple[int, int], heads: int, time_scale: float, where: Path
) -> tuple[UNetConfig, bool, dict[str, Tensor]]:
    """The network's config, whether its variance is learned, and its tensors under undiffuse's names.

    The weights do not state the images' `size`, the number of attention `heads` (4 by default in that program), or
    `time_scale`: 1000 / T, or 1 for weights trained with --rescale_timesteps False. Their label embedding has no row
    for "no label"; here it gets a row of zeros, which was never trained.

    Raises:
        ValueError: the weights are not of that U-Net, or do not fit the size or the heads.
    """
    config, learned_variance = _config(tensors, size, heads, time_scale, where)
    if config.classes:
        rows = tensors["label_emb.weight"]
        tensors = tensors | {"label_emb.weight": torch.cat([rows, torch.zeros_like(rows[:1])])}
    shapes = network_shapes(config, learned_variance)
    names = {name: _their_name(name) for name in shapes}
    return config, learned_variance, rename_tensors(tensors, names, shapes, where)


def _config(
    tensors: dict[str, Tensor], size: tuple[int, int], heads: int, time_scale: float, where: Path
) -> tuple[UNetConfig, bool]:
    def shape(name: str, dims: int) -> torch.Size:
        if name not in tensors or tensors[name].ndim != dims:
            raise ValueError(
                f"{where.absolute()} is not a U-Net of improved-diffusion: {name} is missing or has a wrong shape."
            )
        return tensors[name].shape

    channels, image_channels = shape("input_blocks.0.0.weight", 4)[:2]
    if channels < 1:
        raise ValueError(f"{where.absolute()} holds a network without channels: it is damaged.")
    channels_out = shape("out.2.weight", 4)[0]
    if channels_out not in (image_channels, 2 * image_channels):
        raise ValueError(
            f"{where.absolute()} returns {channels_out} channels for {image_channels}: undiffuse's U-Net returns as "
            "many, or twice as many for a learned variance."
        )
    levels, blocks = _levels(tensors, where)
    # The last residual block of each level; the convolution that halves the feature map follows it.
    last_blocks = [level * (blocks + 1) + blocks for level in range(levels)]
    widths = [shape(f"input_blocks.{block}.0.out_layers.3.weight", 4)[0] for block in last_blocks]
    sides = [max(size) >> level for level in range(levels)]
    config = unet_config(
        where,
        size=size,
        image_channels=image_channels,
        classes=shape("label_emb.weight", 2)[0] if "label_emb.weight" in tensors else 0,
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        blocks=blocks,
        attention_resolutions=tuple(
            side
            for block, side in zip(last_blocks, sides, strict=True)
            if f"input_blocks.{block}.1.qkv.weight" in tensors
        ),
        heads=heads,
        groups=GROUPS,
        dropout=0.0,
        scale_shift_norm=shape("input_blocks.1.0.emb_layers.1.weight", 2)[0] == 2 * widths[0],
        time_scale=time_scale,
    )
    return config, channels_out == 2 * image_channels


def _levels(tensors: dict[str, Tensor], where: Path) -> tuple[int, int]:
    """The number of levels, and of residual blocks on each."""
    stages = len({m[0] for name in tensors if (m := re.match(r"input_blocks\.\d+\.", name))}) - 1
    levels = 1 + sum(bool(re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name)) for name in tensors)
    # On every level but the last, a convolution that halves the feature map is one more stage.
    per_level, remainder = divmod(stages + 1, levels)
    if remainder or per_level < 2:
        raise ValueError(
            f"{where.absolute()} has {stages} input blocks on {levels} levels: undiffuse reads networks with the same "
            "number of residual blocks on every level and a convolution between levels."
        )
    return levels, per_level - 1


def _their_name(ours: str) -> str:
    match ours.split("."):
        case ["input", kind]:
            return f"input_blocks.0.0.{kind}"
        case ["embed", layer, kind]:
            return f"time_embed.{layer}.{kind}"
        case ["embed_label", kind]:
            return f"label_emb.{kind}"
        case ["output", layer, kind]:
            return f"out.{layer}.{kind}"
        case ["middle", block, layer, kind]:
            return f"middle_block.{block}.{_LAYERS[layer]}.{kind}"
        case ["down", stage, block, layer, kind]:
            theirs = "op" if layer == "conv" else _LAYERS[layer]
            return f"input_blocks.{int(stage) + 1}.{block}.{theirs}.{kind}"
        case ["up", stage, block, layer, kind]:
            return f"output_blocks.{stage}.{block}.{_LAYERS[layer]}.{kind}"
    raise AssertionError(ours)
