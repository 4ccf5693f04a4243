"""Tensors that are split over the processes, each of which keeps its shard of every one (FSDP2's DTensor).

A tensor that is not split is its own shard and whole: code that trains is the same for both. torch's modules for it
take a second to import, and so are imported where something is split.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(network: nn.Module, blocks: Iterable[nn.Module], device: torch.device, processes: int) -> None:
    """Splits the weights in place, along the first dimension. Each block's are whole only while it computes.

    A collective later on: gradients are averaged as they are split.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for module in (*blocks, network):
        fully_shard(module, mesh=mesh)


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    module = sys.modules.get("torch.distributed.tensor")  # Not there: nothing was split.
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's shard, in the same memory."""
    with torch.no_grad():
        return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, in every process. A collective, if it is split."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def whole_of(shard: Tensor, like: Tensor) -> Tensor:
    """The whole tensor of which all processes have such shards, split like another. A collective, if that is split."""
    if not is_sharded(like):
        return shard
    from torch.distributed.tensor import DTensor

    shape, stride = like.shape, like.stride()
    return DTensor.from_local(shard, like.device_mesh, like.placements, shape=shape, stride=stride).full_tensor()


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The whole tensor, split like another of its shape if that is split."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    split = distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return split.clone()  # A shard in the memory of the whole tensor would keep all of it.


def load_whole(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Loads whole tensors by name, of which a module that is split takes its shards.

    Raises:
        RuntimeError: the names or shapes are not the module's.
    """
    own = module.state_dict()
    module.load_state_dict({name: shard_like(tensor, own.get(name, tensor)) for name, tensor in tensors})
