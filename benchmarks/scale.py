"""What a preset costs on any hardware: operations and memory by part, counted rather than timed.

python benchmarks/scale.py                   # a markdown table, in a minute; no GPU needed
python benchmarks/scale.py --tflops 120      # hours at what `undiffuse doctor --check` shows for your GPU

The tensors are fake ones, without content: shapes are enough to count with.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
import tyro
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from undiffuse.config import Config
from undiffuse.data.store import DataConfig, Store
from undiffuse.presets import configure

PRESETS = {
    "small": (32, 10),
    "flowers64": (64, 102),
    "cifar10-ddpm": (32, 10),
    "cifar10-iddpm": (32, 10),
    "cifar10-edm": (32, 10),
}
"""The side of the images and the number of classes."""

BYTES_FP32 = 4

LAUNCH_MICROSECONDS = 5.0
"""What PyTorch needs on the CPU to start a kernel without torch.compile: an assumption, not measured here."""


def preset_config(preset: str) -> Config:
    side, classes = PRESETS[preset]
    names = tuple(str(label) for label in range(classes))
    images = Store(Path(), "images", "train", "0" * 16, 50_000, (side, side), 3, names, ())
    return configure(preset, images, DataConfig(data="images", size=(side, side), channels=3), seed=0)


class Kernels(TorchDispatchMode):
    """Counts the operations that compute something: on a GPU each starts at least one kernel, unless compiled."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returns = func._schema.returns
        self.count += bool(returns) and returns[0].alias_info is None
        return func(*args, **(kwargs or {}))


def kernels_of_a_step(config: Config) -> int:
    """How many operations a forward and a backward pass start, however many images they have."""
    with FakeTensorMode():
        network = config.build_network()
        x = torch.zeros(2, config.network.image_channels, *config.network.size)
        with Kernels() as kernels:
            network(
                x, torch.zeros(2), torch.zeros(2, dtype=torch.long) if config.class_names else None
            ).sum().backward()
    return kernels.count


def counted(config: Config, images: int) -> tuple[int, int, int]:
    """Parameters, floating-point operations of a forward pass of so many images, and bytes kept for the backward pass.

    The bytes are those of autocast to bf16 on a CPU, which keeps what convolutions and products read in two bytes.
    """
    with FakeTensorMode():
        network = config.build_network()
        x = torch.zeros(images, config.network.image_channels, *config.network.size)
        c_noise, label = torch.zeros(images), torch.zeros(images, dtype=torch.long)
        weights = {p.untyped_storage()._cdata for p in network.parameters()}
        kept: dict[int, int] = {}
        held = []  # So that no storage is freed and its address used again.

        def note(tensor: torch.Tensor) -> torch.Tensor:
            held.append(tensor)
            if tensor.untyped_storage()._cdata not in weights:
                kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        counter = FlopCounterMode(display=False)
        with counter, torch.autocast("cpu", torch.bfloat16), saved_tensors_hooks(note, lambda tensor: tensor):
            network(x, c_noise, label if config.class_names else None)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops(), sum(kept.values())


def rows(tflops: float) -> Iterable[str]:
    yield (
        "| preset | parameters | GFLOP an image, training | weights, gradients, EMA, optimizer | "
        f"activations an image, bf16 | images of the budget | GPU-hours at {tflops:g} TFLOP/s | batch | "
        f"images whose work takes as long as starting its kernels, {LAUNCH_MICROSECONDS:g} us each |"
    )
    yield "| --- " * 9 + "|"
    for preset in PRESETS:
        config = preset_config(preset)
        parameters, flops, one = counted(config, 1)
        _, _, two = counted(config, 2)
        activation_bytes = two - one  # What is left out are the weights in bf16, which are kept once.
        launching = LAUNCH_MICROSECONDS * 1e-6 * kernels_of_a_step(config)  # Seconds.
        # AdamW keeps two tensors of each weight, Muon one.
        tensors = 3 + (1 if config.optimizer.muon else 2)
        images = config.training.total_images
        hours = images * 3 * flops / (tflops * 1e12) / 3600 if images else None
        yield (
            f"| `{preset}` | {parameters / 1e6:.1f} M | {3 * flops / 1e9:.1f} | "
            f"{tensors * BYTES_FP32 * parameters / 2**20:,.0f} MiB | {activation_bytes / 2**20:.1f} MiB | "
            + (f"{images / 1e6:g} M | {hours:,.1f}" if images else "by the clock | ")
            + f" | {config.training.batch} | {launching / (3 * flops / (tflops * 1e12)):,.0f} |"
        )


def main(tflops: float = 100.0) -> None:
    """Prints the table.

    Args:
        tflops: What a GPU achieves in training, for the hours.
    """
    for row in rows(tflops):
        print(row, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
