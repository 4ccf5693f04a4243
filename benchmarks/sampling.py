"""An evaluation of the network while sampling, against diffusers' of the same network: Ho et al.'s for CIFAR-10.

    pip install -e '.[bench]' && python benchmarks/sampling.py

At equal steps this ratio is that of sampling: everything else costs little. All take turns, as in training.py.
"""

import statistics
from collections.abc import Callable

import torch
import tyro
from diffusers import DDIMPipeline, DDIMScheduler
from measuring import diffusers_unet, seconds_of

from undiffuse.data.store import DataConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.presets import ImageFacts, configure
from undiffuse.sampling.model import model_of
from undiffuse.utils.device import choose_device, compute_dtype, memory_format


def main(count: int = 16, steps: int = 5, repeats: int = 3, channels: int = 128) -> None:
    """Times sampling with the same number of network evaluations: ours in fp32 and bf16, diffusers' pipeline in fp32.

    Args:
        count: Images at once.
        steps: Of DDIM, one evaluation each.
        repeats: Turns, of which the median is shown.
        channels: 128 is Ho et al.'s network; fewer make a short form of this benchmark.
    """
    device = choose_device()
    facts, data = ImageFacts((32, 32), 3), DataConfig(size=(32, 32), channels=3)
    config = configure("cifar10-ddpm", facts, data, 0, network=UNetConfig(channels=channels))
    network = config.build_network().to(device).to(memory_format=memory_format(device)).eval()
    model = model_of(network, config, device)
    pipeline = DDIMPipeline(diffusers_unet(channels, dropout=0.0).to(device).eval(), DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    makers: dict[str, Callable[[], object]] = {
        "diffusers, fp32": lambda: pipeline(batch_size=count, num_inference_steps=steps, output_type="np"),
        "undiffuse, fp32": lambda: model.sample(count, sampler="ddim", steps=steps, precision="fp32"),
    }
    if compute_dtype(device) == torch.bfloat16:
        makers["undiffuse, bf16"] = lambda: model.sample(count, sampler="ddim", steps=steps, precision="bf16")
    for make in makers.values():
        make()  # Warms up.
    turns = [[seconds_of(make) for make in makers.values()] for _ in range(repeats)]
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {count} images, {steps} DDIM steps")
    for i, name in enumerate(makers):
        speed = count * steps / statistics.median(turn[i] for turn in turns)
        ratios = sorted(turn[0] / turn[i] for turn in turns)
        ratio = f", {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})" if i else ""
        print(f"{name}: {speed:.1f} evaluations/s{ratio}")


if __name__ == "__main__":
    tyro.cli(main)
