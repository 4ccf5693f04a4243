"""Weights of diffusers' UNet2DModel under undiffuse's names, and the other way round."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from undiffuse.interop.weights import network_shapes, rename_tensors
from undiffuse.networks.unet import UNetConfig

_LAYERS = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "embedding": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "skip": "conv_shortcut",
    "norm": "group_norm",
    "qkv": "qkv",
    "project": "to_out.0",
}
_ENDS = {
    "input": "conv_in",
    "embed.0": "time_embedding.linear_1",
    "embed.2": "time_embedding.linear_2",
    "embed_label": "class_embedding",
    "output.0": "conv_norm_out",
    "output.2": "conv_out",
}
_OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names in attention that older versions of diffusers wrote; google/ddpm-cifar10-32 has these."""


def from_unet2d(
    tensors: Mapping[str, Tensor], network: UNetConfig, learned_variance: bool, flip_sin_to_cos: bool, where: Path
) -> dict[str, Tensor]:
    """The tensors under undiffuse's names. A label embedding without a row for "no label" gets one of zeros.

    Raises:
        ValueError: the weights do not fit the config.
    """
    _check_size(tensors, network, where)
    shapes = network_shapes(network, learned_variance)
    theirs = {_current(name): tensor for name, tensor in tensors.items()}
    names = {name: _their_name(name, network) for name in shapes}
    for name in names.values():
        if ".qkv." in name:
            _join_qkv(theirs, name, network, where)
    rows = theirs.get("class_embedding.weight")
    if rows is not None and rows.ndim == 2 and len(rows) == network.classes:
        theirs["class_embedding.weight"] = torch.cat([rows, torch.zeros_like(rows[:1])])
    ours = rename_tensors(theirs, names, shapes, where)
    return ours if flip_sin_to_cos else ours | {"embed.0.weight": _sines_last(ours["embed.0.weight"])}


def to_unet2d(tensors: Mapping[str, Tensor], network: UNetConfig, label_rows: int) -> dict[str, Tensor]:
    """The tensors under UNet2DModel's names, with the first `label_rows` rows of the label embedding, if any."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        their_name = _their_name(name, network)
        if name == "embed_label.weight":
            theirs |= {their_name: tensor[:label_rows]} if label_rows else {}
        elif ".qkv." in their_name:
            theirs |= dict(_split_qkv(their_name, tensor, network))
        else:
            theirs[their_name] = tensor.flatten(1) if name.endswith("project.weight") else tensor
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def with_label(tensors: Mapping[str, Tensor], label: int) -> dict[str, Tensor]:
    """The tensors of a network without classes that always makes this class; -1 is no label."""
    # A label's embedding is added to the noise level's, whose last layer has a bias.
    bias = tensors["embed.2.bias"] + tensors["embed_label.weight"][label]
    return {name: t for name, t in tensors.items() if name != "embed_label.weight"} | {"embed.2.bias": bias}


def _check_size(tensors: Mapping[str, Tensor], network: UNetConfig, where: Path) -> None:
    """Raises ValueError before a network is built that is far larger than its weights."""
    widest = max(network.channels * max(network.multipliers), network.classes, network.image_channels)
    largest = max((tensor.numel() for tensor in tensors.values()), default=0)
    if network.blocks * len(network.multipliers) > len(tensors) or widest > largest:
        raise ValueError(f"{where.absolute()} has too few weights for the network of its config.")


def _current(name: str) -> str:
    for old, new in _OLD.items():
        name = name.replace(old, new)
    return name


def _their_name(ours: str, network: UNetConfig) -> str:
    """The name in UNet2DModel, with `.qkv.` in place of its three layers for query, key and value."""
    owner, _, kind = ours.rpartition(".")
    if owner in _ENDS:
        return f"{_ENDS[owner]}.{kind}"
    part, *place, layer = owner.split(".")
    if part == "middle":
        block = "attentions.0" if place[0] == "1" else f"resnets.{int(place[0]) // 2}"
        return f"mid_block.{block}.{_LAYERS[layer]}.{kind}"
    # A level has `blocks` residual blocks and, on the way down, a convolution; on the way up, one more block.
    level, block = divmod(int(place[0]), network.blocks + 1)
    if layer == "conv":
        return f"{part}_blocks.{level}.{part}samplers.0.conv.{kind}"
    group = "resnets" if place[1] == "0" else "attentions"
    return f"{part}_blocks.{level}.{group}.{block}.{_LAYERS[layer]}.{kind}"


def _join_qkv(theirs: dict[str, Tensor], name: str, network: UNetConfig, where: Path) -> None:
    """Replaces query, key and value in `theirs` by one tensor in which each head's three are adjacent."""
    parts = [name.replace(".qkv.", f".to_{letter}.") for letter in "qkv"]
    missing = next((part for part in parts if part not in theirs), None)
    if missing is not None:
        raise ValueError(f"{where.absolute()} has no weights {missing}: it is damaged or incomplete.")
    q, k, v = (theirs.pop(part) for part in parts)
    widths = [network.channels * multiplier for multiplier in network.multipliers]
    if not q.shape == k.shape == v.shape or not q.ndim or len(q) not in widths:
        raise ValueError(f"{where.absolute()}: {parts[0]}, to_k and to_v have the shapes of another network.")
    heads = network.heads_of(len(q))
    theirs[name] = torch.stack([t.unflatten(0, (heads, -1)) for t in (q, k, v)], dim=1).flatten(0, 2)


def _split_qkv(name: str, tensor: Tensor, network: UNetConfig) -> Iterator[tuple[str, Tensor]]:
    heads = network.heads_of(len(tensor) // 3)
    for letter, part in zip("qkv", tensor.unflatten(0, (heads, 3, -1)).unbind(1), strict=True):
        joined = part.flatten(0, 1)
        yield name.replace(".qkv.", f".to_{letter}."), joined.flatten(1) if joined.ndim > 1 else joined


def _sines_last(weight: Tensor) -> Tensor:
    """Reorders the first layer's columns from sines before cosines to cosines before sines."""
    sines, cosines = weight.chunk(2, dim=1)
    return torch.cat([cosines, sines], dim=1)
