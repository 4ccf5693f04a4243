"""The peers' networks, trained as their own examples do, and wrapped as models of ours so that they are measured alike.

denoising-diffusion-pytorch: the README's Unet, GaussianDiffusion and Trainer, with the Trainer's defaults (Adam 8e-5,
batches of 16 accumulated twice, EMA 0.995 every 10 steps, flips, clipping at 1). The Trainer itself wants a folder, a
GPU's half precision and Inception's weights, so its loop is repeated here.

diffusers: examples/unconditional_image_generation/train_unconditional.py with its defaults (AdamW 1e-4, batches of 16,
500 steps of warm-up, cosine decay, EMA of inverse gamma 1 and power 3/4, flips).

Both compute in bf16 where the hardware has it, which is faster than what their examples ask for on a CPU.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from ema_pytorch import EMA
from measuring import median_seconds
from torch import Tensor, nn

from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import DataConfig, Store
from undiffuse.diffusion.denoiser import Prediction, spread
from undiffuse.presets import ImageFacts, configure
from undiffuse.sampling.model import Model, model_of
from undiffuse.utils.device import autocast, choose_device

PeerName = Literal["ddp", "diffusers"]
PeerSize = Literal["s", "m", "l"]
DIVISORS: dict[str, int] = {"s": 4, "m": 2, "l": 1}


@dataclass(frozen=True)
class Peer:
    """A network with everything that trains it."""

    network: nn.Module
    ema: Callable[[], nn.Module]
    """The network with the averaged weights, for sampling."""
    step: Callable[[Tensor], object]
    """One training step on a batch in [-1, 1]."""
    batch: int
    denoise: Callable[[nn.Module, Tensor, Tensor], Tensor]
    """(network, x, sigma) -> x0"""


@dataclass(frozen=True)
class Trained:
    model: Model
    images: int
    images_per_second: float
    parameters: int
    wall_minutes: float


def train_peer(
    name: PeerName, size: PeerSize, store: Store, minutes: float, seed: int, images_per_second: float | None = None
) -> Trained:
    """Trains for the minutes of an idle machine: its speed is measured first, unless it is given."""
    make = {"ddp": ddp, "diffusers": diffusers}[name]
    speed = images_per_second
    if speed is None:
        throwaway = make(size, 1000)
        some = _images(store, throwaway.batch, seed)
        speed = throwaway.batch / median_seconds(lambda: throwaway.step(next(some)))
    torch.manual_seed(seed)
    batch = make(size, 1).batch
    steps = max(1, round(60 * minutes * speed / batch))
    torch.manual_seed(seed)
    peer, images = make(size, steps), _images(store, batch, seed)
    began = time.monotonic()
    for _ in range(steps):
        peer.step(next(images))
    wall = (time.monotonic() - began) / 60
    parameters = sum(p.numel() for p in peer.network.parameters())
    return Trained(_as_model(peer), steps * batch, speed, parameters, wall)


def ddp(size: PeerSize, steps: int) -> Peer:
    """denoising-diffusion-pytorch's README example; `steps` is not needed: its learning rate is constant."""
    device = choose_device()
    network = Unet(dim=64 // DIVISORS[size], dim_mults=(1, 2, 4, 8)).to(device)
    diffusion = GaussianDiffusion(network, image_size=32, timesteps=1000).to(device)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
    ema = EMA(diffusion, beta=0.995, update_every=10)
    accumulated = 2

    def step(x0: Tensor) -> None:
        for part in x0.to(device).chunk(accumulated):
            with autocast(device, "auto"):
                loss = diffusion((part + 1) / 2) / accumulated  # It normalizes images from [0, 1] itself.
            loss.backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update()

    sigmas = _sigmas(diffusion.alphas_cumprod)

    def denoise(model: nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
        # v-prediction: x0 = alpha x_t - s v with alpha = 1 / sqrt(1 + sigma^2), s = sigma alpha, x_t = alpha x.
        alpha = spread(1 / (1 + sigma**2).sqrt())
        v = model((alpha * x).float(), _timestep(sigma, sigmas))
        return alpha * (alpha * x) - spread(sigma) * alpha * v

    return Peer(network, lambda: ema.ema_model.model, step, 16 * accumulated, denoise)


def diffusers(size: PeerSize, steps: int) -> Peer:
    """diffusers' example of unconditional generation, for `steps` training steps."""
    device = choose_device()
    channels = tuple(c // DIVISORS[size] for c in (128, 128, 256, 256, 512, 512))
    network = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=channels,
        down_block_types=(*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
    ).to(device)
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate = get_cosine_schedule_with_warmup(optimizer, min(500, steps // 10), steps)
    ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def step(x0: Tensor) -> None:
        x0 = x0.to(device)
        eps, t = torch.randn_like(x0), torch.randint(1000, (len(x0),), device=device)
        with autocast(device, "auto"):
            predicted = network(scheduler.add_noise(x0, eps, t), t).sample
        (predicted.float() - eps).square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        ema.step(network.parameters())

    sigmas = _sigmas(scheduler.alphas_cumprod)

    def denoise(model: nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
        x_t = x / spread((1 + sigma**2).sqrt())
        return x - spread(sigma) * model(x_t.float(), _timestep(sigma, sigmas)).sample

    def averaged() -> nn.Module:
        ema.copy_to(network.parameters())
        return network

    return Peer(network, averaged, step, 16, denoise)


def _as_model(peer: Peer) -> Model:
    """The peer behind our interface."""
    device, network = choose_device(), peer.ema().eval()

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Prediction:
        with autocast(device, "auto"), torch.no_grad():
            return Prediction(peer.denoise(network, x, sigma).to(x.dtype), None)

    facts, data = ImageFacts((32, 32), 3), DataConfig(size=(32, 32), channels=3)
    config = configure("cifar10-ddpm", facts, data, 0)
    return replace(model_of(network, config, device), predict=predict)


def _sigmas(alphas_cumprod: Tensor) -> np.ndarray:
    """The discrete schedule on the sigma axis, rising."""
    return (1 / alphas_cumprod.double().cpu().numpy() - 1) ** 0.5


def _timestep(sigma: Tensor, sigmas: np.ndarray) -> Tensor:
    """The fractional timestep of each sigma; both networks embed it with sines, so it need not be whole."""
    log_sigmas = np.log(sigmas)
    t = np.interp(np.log(sigma.double().cpu().numpy()), log_sigmas, np.arange(len(sigmas)))
    return torch.from_numpy(t).to(sigma.device, torch.float32)


def _images(store: Store, batch: int, seed: int) -> Iterator[Tensor]:
    """Batches in [-1, 1] with random horizontal flips, a new order each epoch."""
    rng, whole = np.random.default_rng(seed), len(store) // batch * batch
    while True:
        for chunk in rng.permutation(len(store))[:whole].reshape(-1, batch):
            x0 = to_nchw(store.read(chunk)).float() / 127.5 - 1
            flips = torch.from_numpy(rng.random(batch) < 0.5)
            yield torch.where(flips[:, None, None, None], x0.flip(3), x0)
