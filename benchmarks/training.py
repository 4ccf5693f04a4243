"""A whole training step against diffusers' of the same network, Ho et al.'s for CIFAR-10 with 35.7 M parameters.

    pip install -e '.[bench]' && python benchmarks/training.py

A step is a batch forward and backward, clipping, the optimizer and the EMA. diffusers runs as its example does by
default (fp32) and in bf16. All take turns, and each ratio is computed turn by turn, so that other work on the machine
slows all of them down alike. The peak is what this machine reaches in the network's own convolutions and nothing else.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from diffusers.training_utils import EMAModel
from measuring import diffusers_unet, made_up_batches, seconds_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from undiffuse.config import with_settings
from undiffuse.data.store import DataConfig
from undiffuse.presets import ImageFacts, configure
from undiffuse.training.choices import chosen
from undiffuse.training.loop import training_steps
from undiffuse.training.state import new_state
from undiffuse.utils.device import autocast, choose_device, compute_dtype, synchronize
from undiffuse.utils.names import Precision
from undiffuse.utils.world import World


@dataclass(frozen=True)
class Candidate:
    name: str
    step: Callable[[], object]


def main(
    batch: int = 64,
    repeats: int = 3,
    dropout: float = 0.1,
    muon: bool = False,
    microbatch: int | None = None,
    channels: int = 128,
) -> None:
    """Times whole training steps of both, and says what fraction of the peak ours reaches.

    Args:
        batch: Images per step.
        repeats: Turns, of which the median is shown.
        dropout: Ho et al.'s 0.1, or 0.
        muon: Train ours with Muon rather than AdamW, which the peer uses.
        microbatch: Images at once; None measures, as training does.
        channels: 128 is Ho et al.'s network; fewer make a short form of this benchmark.
    """
    device = choose_device()
    ours, flops = _ours(batch, dropout, muon, microbatch, channels)
    candidates = [ours, _theirs(batch, dropout, channels, "fp32")]
    if compute_dtype(device) == torch.bfloat16:
        candidates.append(_theirs(batch, dropout, channels, "bf16"))
    for candidate in candidates:
        candidate.step()  # Warms up.
    turns = [[seconds_of(candidate.step) for candidate in candidates] for _ in range(repeats)]
    dtype = str(compute_dtype(device)).removeprefix("torch.")
    print(f"{device}, {dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {batch}")
    for i, candidate in enumerate(candidates):
        speed = batch / statistics.median(turn[i] for turn in turns)
        ratios = sorted(turn[i] / turn[0] for turn in turns)
        ratio = f"ours is {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{candidate.name}: {speed:.2f} images/s" + (f"; {ratio}" if i else ""))
    peak = _peak(channels)
    reached = flops * batch / statistics.median(turn[0] for turn in turns)
    print(f"peak of convolutions {peak / 1e9:.0f} GFLOP/s; a whole step of ours reaches {reached / peak:.0%} of it")


def _ours(batch: int, dropout: float, muon: bool, microbatch: int | None, channels: int) -> tuple[Candidate, float]:
    """Our training step, and the floating-point operations of one image, forward and backward."""
    device = choose_device()
    facts, data = ImageFacts((32, 32), 3), DataConfig(size=(32, 32), channels=3)
    settings = [
        f"training.batch={batch}",
        f"training.microbatch={microbatch or 'null'}",
        f"network.dropout={dropout}",
        f"network.channels={channels}",
        f"optimizer.muon={str(muon).lower()}",
    ]
    config = chosen(with_settings(configure("cifar10-ddpm", facts, data, 0), settings), 50_000, device, 1)
    state = new_state(config, device)
    with FlopCounterMode(display=False) as counter:
        x, c_noise = torch.randn(1, 3, 32, 32, device=device), torch.rand(1, device=device)
        state.network(x, c_noise).mean().backward()
    state.network.zero_grad()
    steps = training_steps(state, config, made_up_batches(config), lambda: 0.1, World.alone(device))
    name = f"undiffuse, {'Muon' if muon else 'AdamW'}, microbatch {config.training.microbatch}"
    return Candidate(name, lambda: next(steps)), counter.get_total_flops()


def _theirs(batch: int, dropout: float, channels: int, precision: Precision) -> Candidate:
    device = choose_device()
    network = diffusers_unet(channels, dropout).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    ema = EMAModel(network.parameters(), decay=0.9999)

    def step() -> None:
        x, t = torch.randn(batch, 3, 32, 32, device=device), torch.rand(batch, device=device) * 1000
        with autocast(device, precision):
            predicted: Tensor = network(x, t).sample
        (predicted.float() - x).square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(network.parameters())
        synchronize(device)

    return Candidate(f"diffusers, {precision}", step)


def _peak(channels: int) -> float:
    """Floating-point operations per second, forward and backward, of the convolution that the network has most of."""
    device = choose_device()
    dtype = compute_dtype(device)
    conv = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1).to(device, dtype)
    x = torch.randn(32, 2 * channels, 16, 16, device=device, dtype=dtype, requires_grad=True)

    def step() -> None:
        conv(x).sum().backward()
        synchronize(device)

    step()
    seconds = min(seconds_of(step) for _ in range(10))
    return 3 * 2 * x.numel() * 9 * 2 * channels / seconds


if __name__ == "__main__":
    tyro.cli(main)
