"""What a run will need, measured on a few steps rather than guessed."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from undiffuse.config import Config
from undiffuse.training.ema import update_ema
from undiffuse.training.optimizers import optimizer_tensors
from undiffuse.training.session import new_state
from undiffuse.utils.device import autocast, compute_dtype, state_dtype, synchronize

MEASURED_IMAGES = 16


@dataclass(frozen=True)
class Estimate:
    parameters: int
    memory_bytes: int
    """Weights, their average, gradients, the optimizer's memory and the activations."""
    activation_bytes: int
    """What the backward pass of one microbatch has to remember."""
    seconds_per_image: float


def estimate(config: Config, device: torch.device, world: int = 1) -> Estimate:
    """Two training steps on noise: the first to warm up, the second to measure. `world` world share each batch."""
    state = new_state(config, device)
    images = min(config.training.microbatch, config.training.batch)
    if device.type == "cpu":  # Elsewhere a small batch would measure how fast kernels are launched.
        images = min(MEASURED_IMAGES, images)
    shape = images, config.network.image_channels, *config.network.size
    x0, eps = torch.rand(shape, device=device) * 2 - 1, torch.randn(shape, device=device)
    label = torch.zeros(images, dtype=torch.long, device=device)
    sigma = state.draws.draw(torch.linspace(0.1, 0.9, images, dtype=torch.float64)).sigma
    sigma, loss_of = sigma.to(device, state_dtype(device)), config.diffusion.loss()
    remembered: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        remembered[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    seconds_step = seconds_update = 0.0
    for _ in range(2):
        began = _now(device)
        remembered.clear()
        with (
            torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor),
            autocast(device, compute_dtype(device, config.training.precision)),
        ):
            loss = loss_of(state.network, x0=x0, eps=eps, sigma=sigma, label=label).mean()
        loss.backward()
        seconds_step = _now(device) - began
        for optimizer in state.optimizers:
            optimizer.step()
        update_ema(state.average, state.network, images, images, 1.0)
        seconds_update = _now(device) - began - seconds_step
    weights = sum(p.numel() * p.element_size() for p in state.network.parameters())
    optimizer_bytes = sum(t.numel() * t.element_size() for t in optimizer_tensors(state.optimizers).values())
    of_weights = {p.untyped_storage().data_ptr() for p in state.network.parameters()}
    measured = sum(size for pointer, size in remembered.items() if pointer not in of_weights)
    activation_bytes = measured * min(config.training.microbatch, config.training.batch) // images
    return Estimate(
        parameters=sum(p.numel() for p in state.network.parameters()),
        memory_bytes=3 * weights + optimizer_bytes + activation_bytes,  # The weights, their average, their gradients.
        activation_bytes=activation_bytes,
        seconds_per_image=(seconds_step / images + seconds_update * world / config.training.batch) / world,
    )


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.monotonic()
