"""What a run will need, measured on two training steps rather than guessed."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from undiffuse.config import Config
from undiffuse.training.ema import update_ema
from undiffuse.training.optimizers import optimizer_tensors
from undiffuse.training.state import new_state
from undiffuse.utils.device import autocast, compute_dtype, state_dtype, synchronize

MEASURED_IMAGES = 16


@dataclass(frozen=True)
class Cost:
    """What training needs, per process."""

    parameters: int
    """Of the network."""
    memory_bytes: int
    """Weights, their EMA, gradients, the optimizer's state and the activations."""
    activation_bytes: int
    """What the backward pass of one microbatch needs from the forward pass."""
    seconds_per_image: float
    """Of all processes together."""
    fitting_microbatch: int | None = None
    """One that does not run out of memory, if the configured one does."""


def measure_cost(config: Config, device: torch.device, processes: int = 1) -> Cost:
    """Takes two training steps on noise: the first warms up, the second is measured.

    Each batch is taken to be split over `processes`. Where memory runs out, fewer images are measured than the
    microbatch has, and what it would need is worked out from them.

    Raises:
        torch.OutOfMemoryError: there is not even enough for one image.
    """
    microbatch = min(config.training.microbatch or config.training.batch, config.training.batch)
    images = microbatch
    if device.type == "cpu":  # Elsewhere a small batch would measure how fast kernels are launched.
        images = min(MEASURED_IMAGES, images)
    measured = images
    while True:
        try:
            cost = _measured(config, device, processes, microbatch, measured)
            return cost if measured == images else replace(cost, fitting_microbatch=measured)
        except torch.OutOfMemoryError:
            if measured == 1:
                raise
        measured //= 2


def _measured(config: Config, device: torch.device, processes: int, microbatch: int, images: int) -> Cost:
    """The cost of training in microbatches, from steps with so many images at once."""
    state = new_state(config, device)
    inputs, loss_of = noise_inputs(config, images, device), config.diffusion.make_loss()
    saved: dict[int, int] = {}
    """The bytes of each tensor kept for the backward pass, by its address."""

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    seconds_step = seconds_update = 0.0
    for _ in range(2):
        began = _now(device)
        saved.clear()
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            autocast(device, compute_dtype(device, config.training.precision)),
        ):
            loss = loss_of(state.network, **inputs).mean()
        loss.backward()
        seconds_step = _now(device) - began
        for optimizer in state.optimizers:
            optimizer.step()
        update_ema(state.ema, state.network, images, images, 1.0)
        seconds_update = _now(device) - began - seconds_step
    parameters = list(state.network.parameters())
    weight_bytes = sum(p.numel() * p.element_size() for p in parameters)
    optimizer_bytes = sum(t.numel() * t.element_size() for t in optimizer_tensors(state.optimizers).values())
    addresses = {p.untyped_storage().data_ptr() for p in parameters}
    measured = sum(size for address, size in saved.items() if address not in addresses)
    activation_bytes = measured * microbatch // images
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        memory_bytes=3 * weight_bytes + optimizer_bytes + activation_bytes,  # The weights, their EMA, their gradients.
        activation_bytes=activation_bytes,
        seconds_per_image=(seconds_step / images + seconds_update * processes / config.training.batch) / processes,
    )


def noise_inputs(config: Config, images: int, device: torch.device) -> dict[str, Tensor]:
    """Arguments of a loss: as many images of noise, at noise levels as training samples them."""
    shape = images, config.network.image_channels, *config.network.size
    u = torch.linspace(0.1, 0.9, images, dtype=torch.float64)
    return {
        "x0": torch.rand(shape, device=device) * 2 - 1,
        "eps": torch.randn(shape, device=device),
        "sigma": config.diffusion.make_sigma_sampler().sample(u).sigma.to(device, state_dtype(device)),
        "label": torch.zeros(images, dtype=torch.long, device=device),
    }


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.monotonic()
