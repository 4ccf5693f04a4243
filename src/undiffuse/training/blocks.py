"""A network block by block: what large models need to fit in memory."""

from collections.abc import Iterable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@runtime_checkable
class HasBlocks(Protocol):
    """A network made of blocks."""

    def blocks(self) -> Iterable[nn.Module]:
        """The modules that together hold most of the features and weights; none is inside another.

        Each is called once in a forward pass, and what it computes depends on its arguments, weights and dropout alone.
        """
        ...


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The network's blocks; none if it does not say."""
    return list(network.blocks()) if isinstance(network, HasBlocks) else []


def recompute_activations(network: nn.Module, device: torch.device) -> None:
    """Makes the backward pass compute the features inside of each block again, instead of keeping them all.

    Gradients stay the same to the last bit: dropout gets the same random numbers (Chen et al. 2016, "Training deep nets
    with sublinear memory cost").

    Raises:
        ValueError: the network has no blocks, or dropout on a device whose random numbers torch cannot repeat.
    """
    blocks = blocks_of(network)
    if not blocks:
        raise ValueError(
            f"training.activation_checkpointing needs a method blocks() in {type(network).__name__} that returns the "
            "modules to compute again: add it, or leave the setting out."
        )
    if device.type == "mps" and any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules()):
        raise ValueError("training.activation_checkpointing cannot repeat dropout on MPS: set network.dropout=0 too.")
    for block in blocks:
        # Not a module around the block, which would change the names of its weights.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
