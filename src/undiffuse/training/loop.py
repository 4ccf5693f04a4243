"""Training itself: Ho et al. 2020, Algorithm 1, as a generator that yields after every step.

Nothing here shows, saves or decides when to stop: whoever iterates does.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from undiffuse.config import Config
from undiffuse.data.batches import Batch
from undiffuse.diffusion.sigma_samplers import SigmaSampler
from undiffuse.training.ema import update_ema
from undiffuse.training.optimizers import learning_rate_factor, set_learning_rate
from undiffuse.utils.device import autocast, state_dtype
from undiffuse.utils.randomness import derived_seed
from undiffuse.utils.world import World


@dataclass
class TrainingState:
    """All that changes while training, and so all that a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    optimizers: list[Optimizer]
    draws: SigmaSampler
    images: int = 0
    """Images seen by all processes together."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""
    skipped: int = 0
    """Batches left out because loss or gradient was not finite."""
    skipped_in_a_row: int = 0


class StepReport(NamedTuple):
    loss: float
    """Mean over the global batch."""
    gradient_norm: float
    learning_rate: float
    skipped: bool


def train(
    state: TrainingState,
    config: Config,
    batches: Iterator[Batch],
    progress: Callable[[], float],
    world: World,
    dtype: torch.dtype,
) -> Iterator[StepReport]:
    """Steps without end. `progress` says what part of the budget is spent, from 0 to 1.

    A batch whose loss or gradient is not finite changes nothing but the counts in `state`.
    """
    network = world.wrap(state.network)  # The same network, its gradients averaged over all processes.
    objective = config.diffusion.loss()
    weights = list(state.network.parameters())

    def losses_of(x0: Tensor, eps: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        with autocast(world.device, dtype):
            return objective(network, x0=x0, eps=eps, sigma=sigma, label=label)

    for batch in batches:
        # Dropout must not depend on what was drawn before a restart.
        torch.manual_seed(derived_seed("dropout", config.seed, state.images, world.rank))
        learning_rate = config.optimizer.learning_rate * learning_rate_factor(
            state.images, progress(), config.optimizer
        )
        set_learning_rate(state.optimizers, learning_rate)

        sigma, weight = state.draws.draw(batch.u)
        losses = []
        tensors = batch.x0, batch.eps, sigma, batch.label, weight / len(sigma)
        parts = _parts(tensors, config.training.microbatch, world.device)
        for i, (*part, share) in enumerate(parts):
            with world.sync_gradients(network, on=i == len(parts) - 1):
                part_losses = losses_of(*part)
                (share.to(part_losses) * part_losses).sum().backward()
            losses.append(part_losses.detach())
        loss_by_image = torch.cat(losses).cpu()
        loss = world.mean(float((weight / len(sigma)) @ loss_by_image.to(weight)))
        gradient_norm = float(clip_grad_norm_(weights, config.optimizer.max_gradient_norm or math.inf))

        state.images += config.training.batch
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        if finite:
            for optimizer in state.optimizers:
                optimizer.step()
            state.draws.observe(sigma, loss_by_image, world.gather)
            update_ema(
                state.average, state.network, config.training.batch, state.images, config.training.ema_halflife_images
            )
        state.skipped += not finite
        state.skipped_in_a_row = 0 if finite else state.skipped_in_a_row + 1
        state.network.zero_grad()
        yield StepReport(loss, gradient_norm, learning_rate, not finite)


def _parts(batch: tuple[Tensor, ...], size: int, device: torch.device) -> list[tuple[Tensor, ...]]:
    """The batch on the device, in parts of at most `size` images."""

    def moved(tensor: Tensor) -> Tensor:
        dtype = state_dtype(device) if tensor.dtype == torch.float64 else tensor.dtype
        return tensor.to(device, dtype, non_blocking=True)

    return list(zip(*(moved(tensor).split(size) for tensor in batch), strict=True))
