"""Layers whose speed decided how networks are computed: group normalization in two layouts, dropout with two masks.

python benchmarks/layers.py
"""

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
import tyro
from measuring import seconds_of
from torch import nn

from undiffuse.networks.layers import Dropout
from undiffuse.utils.device import choose_device, compute_dtype, synchronize


def main(batch: int = 32, repeats: int = 20) -> None:
    """Times forward and backward passes in the precision of training.

    Args:
        batch: Images at once.
        repeats: Of each, of which the median is shown.
    """
    device = choose_device()
    dtype = compute_dtype(device)
    print(f"{device}, {dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    def milliseconds(shape: tuple[int, ...], layout: torch.memory_format, layer: Callable) -> float:
        x = torch.randn(shape, device=device, dtype=dtype).to(memory_format=layout).requires_grad_()
        gradient = torch.ones_like(x)

        def step() -> None:
            layer(x).backward(gradient)
            synchronize(device)

        step()
        return 1000 * statistics.median(seconds_of(step) for _ in range(repeats))

    last, first = torch.channels_last, torch.contiguous_format
    for channels, side in ((32, 32), (64, 16), (128, 16)):
        shape = batch, channels, side, side
        times = [milliseconds(shape, layout, lambda x: F.group_norm(x, 16)) for layout in (last, first)]
        print(f"group norm, 16 groups, {shape}: {times[0]:.2f} ms channels_last, {times[1]:.2f} ms contiguous")
    shape = batch, 256, 16, 16
    times = [milliseconds(shape, first, layer) for layer in (nn.Dropout(0.1), Dropout(0.1))]
    print(f"dropout, {shape}: {times[0]:.2f} ms torch's, {times[1]:.2f} ms ours")


if __name__ == "__main__":
    tyro.cli(main)
