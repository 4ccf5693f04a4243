"""A training step of our U-Net against one of diffusers' UNet2DModel of the same shape, Ho et al.'s for CIFAR-10.

    pip install -e '.[bench]' && python benchmarks/unet.py --batch 8 --repeats 5

The two take turns, and the ratio is computed turn by turn, so that other work on the machine slows both down alike.
"""

import statistics
import time
from collections.abc import Callable

import torch
import tyro
from diffusers import UNet2DModel
from torch import Tensor, nn

from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.utils.device import autocast, choose_device, compute_dtype, synchronize


def peer(dropout: float) -> UNet2DModel:
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(128, 256, 256, 256),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        dropout=dropout,
    )


def main(batch: int = 8, repeats: int = 5, dropout: float = 0.1, channels_last: bool = True) -> None:
    """Times the forward and backward pass of both, in the precision that training would choose on this machine.

    Args:
        batch: Images per step.
        repeats: Turns, of which the median is shown.
        dropout: Ho et al.'s 0.1, or 0.
        channels_last: Use the faster memory format for the peer too.
    """
    device = choose_device()
    dtype = compute_dtype(device)
    ours = UNet(UNetConfig(dropout=dropout)).to(device).to(memory_format=torch.channels_last)
    theirs = peer(dropout).to(device)
    if channels_last:
        theirs = theirs.to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, 32, 32, device=device)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    t = torch.rand(batch, device=device) * 1000

    def stepper(network: nn.Module, forward: Callable[[], Tensor]) -> Callable[[], float]:
        def step() -> float:
            began = time.perf_counter()
            with autocast(device, dtype):
                loss = forward().square().mean()
            loss.backward()
            synchronize(device)
            network.zero_grad()
            return time.perf_counter() - began

        return step

    our_step, their_step = stepper(ours, lambda: ours(x, t)), stepper(theirs, lambda: theirs(x, t).sample)
    our_step(), their_step()  # Warm up.
    turns = [(our_step(), their_step()) for _ in range(repeats)]
    print(f"device {device}, {dtype}, batch {batch}, dropout {dropout}, {torch.get_num_threads()} threads")
    for name, network, times in (
        ("undiffuse", ours, [a for a, _ in turns]),
        ("diffusers", theirs, [b for _, b in turns]),
    ):
        parameters = sum(p.numel() for p in network.parameters())
        print(f"{name}: {parameters:,} parameters, {batch / statistics.median(times):.2f} images/s")
    ratios = sorted(b / a for a, b in turns)
    print(f"ours is {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f} over the turns)")


if __name__ == "__main__":
    tyro.cli(main)
