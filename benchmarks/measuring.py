"""What the benchmarks of quality and of speed measure alike for our networks and for the peers'."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from diffusers import UNet2DModel

from undiffuse.config import Config
from undiffuse.data.batches import Batch
from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import Store
from undiffuse.diffusion.loss import edm_weight
from undiffuse.sampling.model import Model
from undiffuse.training.loop import training_steps
from undiffuse.training.state import new_state
from undiffuse.utils.device import choose_device, compute_dtype
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.world import World

HELD_OUT_IMAGES = 1000
HELD_OUT_SIGMAS = (0.03, 0.1, 0.3, 0.6, 1.2, 2.5, 6.0, 20.0)
MEASURED_SECONDS = 12


def training_speed(config: Config) -> float:
    """Images per second of whole training steps, on made-up images: the median over some seconds."""
    device = choose_device()
    state, batch = new_state(config, device), config.training.batch
    steps = training_steps(state, config, made_up_batches(config), lambda: 0.1, World.alone(device))
    return batch / median_seconds(lambda: next(steps))


def made_up_batches(config: Config) -> Iterator[Batch]:
    """Noise in the shape of training batches, without end."""
    batch = config.training.batch
    shape = batch, config.network.image_channels, *config.network.size
    label = torch.randint(max(1, len(config.class_names)), (batch,))
    while True:
        yield Batch(
            torch.rand(shape) * 2 - 1,
            label,
            torch.rand(batch, dtype=torch.float64),
            torch.randn(shape),
            augmentation=torch.empty(batch, 0),
            numbers=torch.empty(batch, 0),
            categories=torch.empty(batch, 0, dtype=torch.long),
            image=torch.empty(batch, 0, *shape[2:]),
            coordinates=torch.empty(batch, 0, *shape[2:]),
        )


def diffusers_unet(channels: int, dropout: float) -> UNet2DModel:
    """diffusers' network of the shape of Ho et al.'s for CIFAR-10, which has 128 channels and dropout 0.1."""
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(channels, 2 * channels, 2 * channels, 2 * channels),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        dropout=dropout,
    )


def seconds_of(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def median_seconds(step: Callable[[], object]) -> float:
    for _ in range(2):
        step()
    times: list[float] = []
    while sum(times) < MEASURED_SECONDS or len(times) < 3:
        times.append(seconds_of(step))
    return statistics.median(times)


@torch.no_grad()
def held_out_losses(model: Model, store: Store) -> dict[str, float]:
    """The denoiser's error at each noise level on the same images with the same noise for every model."""
    indices = torch.linspace(0, len(store) - 1, HELD_OUT_IMAGES).long().numpy()
    weight = edm_weight(0.5)
    losses = {}
    for sigma in HELD_OUT_SIGMAS:
        errors = []
        for chunk in torch.from_numpy(indices).split(100):
            x0 = to_nchw(store.read(chunk.numpy())).float() / 127.5 - 1
            eps = ImageRandomness(f"held out {sigma}", 0, chunk.tolist()).normal(*store.shape)
            label = torch.from_numpy(store.labels[chunk.numpy()]) if model.class_names else None
            denoised = model.denoise(x0 + sigma * eps, sigma, label)
            errors.append((denoised - x0).square().mean(dim=(1, 2, 3)))
        level = torch.tensor([sigma], dtype=torch.float64)
        losses[f"{sigma:g}"] = float(torch.cat(errors).mean() * weight(level))
    return losses


def machine() -> str:
    bf16 = compute_dtype(choose_device()) == torch.bfloat16
    return f"{torch.get_num_threads()} threads, {'bf16' if bf16 else 'fp32'}, torch {torch.__version__}"
