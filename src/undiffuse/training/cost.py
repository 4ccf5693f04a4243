"""What a run will need, measured on two training steps rather than guessed."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.config import Config
from undiffuse.data.patches import mean_pixels
from undiffuse.training.blocks import blocks_of
from undiffuse.training.ema import update_ema
from undiffuse.training.optimizers import optimizer_tensors
from undiffuse.training.state import new_state
from undiffuse.utils.conditions import Condition, Conditions, ConditionSizes, simplest
from undiffuse.utils.device import autocast, state_dtype, synchronize

MEASURED_IMAGES = 16


@dataclass(frozen=True)
class Cost:
    """What training needs, per process."""

    parameters: int
    """Of the network."""
    memory_bytes: int
    """Weights, their EMA, gradients, the optimizer's state and the activations. Of sharded weights, this process's
    shards, and what is whole while a block computes."""
    activation_bytes: int
    """What the backward pass of one microbatch needs from the forward pass, and what it computes again."""
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
    parameters = list(state.network.parameters())

    def loss() -> Tensor:
        with autocast(device, config.training.precision):
            return loss_of(state.network, **inputs).mean()

    again = largest_block_bytes(state.network, loss) if config.training.activation_checkpointing else 0
    measured, seconds_step, seconds_update = 0, 0.0, 0.0
    for _ in range(2):
        began = _now(device)
        with saving(parameters) as saved:
            total = loss()
        measured = sum(saved.values()) + again
        total.backward()
        seconds_step = _now(device) - began
        for optimizer in state.optimizers:
            optimizer.step()
        update_ema(state.ema, state.network, images, images, 1.0)
        seconds_update = _now(device) - began - seconds_step
    weight_bytes = sum(p.numel() * p.element_size() for p in parameters)
    optimizer_bytes = sum(t.numel() * t.element_size() for t in optimizer_tensors(state.optimizers).values())
    activation_bytes = measured * microbatch // images
    state_bytes = 3 * weight_bytes + optimizer_bytes  # The weights, their EMA, their gradients.
    if config.training.shard_weights and processes > 1:
        state_bytes = state_bytes // processes + whole_bytes(state.network)
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        memory_bytes=state_bytes + activation_bytes,
        activation_bytes=activation_bytes,
        # Patches take about as long as they have pixels: measured 0.62 for 0.59 of them, small at 32x32.
        seconds_per_image=(
            seconds_step / images * mean_pixels(config.augmentation.patches)
            + seconds_update * processes / config.training.batch
        )
        / processes,
    )


@contextmanager
def saving(known: Iterable[Tensor]) -> Generator[dict[int, int], None, None]:
    """Gives the bytes of each tensor that is kept for the backward pass, by its address, except of the `known` ones."""
    saved: dict[int, int] = {}
    addresses = {tensor.untyped_storage().data_ptr() for tensor in known}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in addresses:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield saved


def largest_block_bytes(network: nn.Module, forward: Callable[[], object]) -> int:
    """The most that the backward pass keeps of one block while it computes its features again."""
    largest = 0

    def measure(block: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        nonlocal largest
        tensors = [each for each in inputs if isinstance(each, Tensor)]
        with saving([*block.parameters(), *tensors]) as saved:
            type(block).forward(block, *inputs)
        largest = max(largest, sum(saved.values()))

    hooks = [block.register_forward_hook(measure) for block in blocks_of(network)]
    forward()
    for hook in hooks:
        hook.remove()
    return largest


def whole_bytes(network: nn.Module) -> int:
    """The most that is whole at once of weights that are sharded, with as many gradients.

    That are those outside of the blocks, of the block that computes, and of the one that is fetched meanwhile.
    """

    def size(module: nn.Module) -> int:
        return sum(p.numel() * p.element_size() for p in module.parameters())

    blocks = sorted((size(block) for block in blocks_of(network)), reverse=True)
    return 2 * (size(network) - sum(blocks) + sum(blocks[:2]))


def noise_inputs(config: Config, images: int, device: torch.device) -> dict[str, Any]:
    """Arguments of a loss: as many images of noise, at noise levels as training samples them."""
    shape = images, config.network.image_channels, *config.network.size
    u = torch.linspace(0.1, 0.9, images, dtype=torch.float64)
    return {
        "x0": torch.rand(shape, device=device) * 2 - 1,
        "eps": torch.randn(shape, device=device),
        "sigma": config.diffusion.make_sigma_sampler().sample(u).sigma.to(device, state_dtype(device)),
        "label": _some_condition(config.condition_sizes, images, config.network.size, device),
    }


def _some_condition(sizes: ConditionSizes, images: int, size: tuple[int, int], device: torch.device) -> Condition:
    """Something of all that the network can be told."""

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return torch.zeros(images, *shape, dtype=dtype, device=device) if all(shape) else None

    return simplest(
        Conditions(
            label=zeros(dtype=torch.long),
            augmentation=zeros(sizes.augmentation),
            numbers=zeros(sizes.numbers),
            categories=zeros(len(sizes.categories), dtype=torch.long),
            image=zeros(sizes.image_channels, *size),
        )
    )


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.monotonic()
