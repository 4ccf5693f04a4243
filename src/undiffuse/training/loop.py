"""Training itself: Ho et al. 2020, Algorithm 1, as a generator that yields after every step.

Nothing here shows anything, saves anything or decides when to stop: whoever iterates does.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from undiffuse.config import Config
from undiffuse.data.batches import Batch
from undiffuse.training.ema import update_ema
from undiffuse.training.optimizers import learning_rate_factor, set_learning_rate
from undiffuse.training.state import TrainingState
from undiffuse.utils.device import autocast, state_dtype
from undiffuse.utils.randomness import derived_seed
from undiffuse.utils.world import World


class StepReport(NamedTuple):
    """What one training step came to, the same on every process."""

    loss: float
    """Mean over the global batch, weighted as the sigma sampler asks."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    skipped: bool
    """Whether the loss or the gradient was not finite, so that the weights did not move."""


def training_steps(
    state: TrainingState,
    config: Config,
    batches: Iterator[Batch],
    progress: Callable[[], float],
    world: World,
    dtype: torch.dtype,
) -> Iterator[StepReport]:
    """Takes training steps without end. `progress` returns the fraction of the budget that is spent; it may be a
    collective, so all processes call it together.

    A batch whose loss or gradient is not finite changes nothing but the counts in `state`.
    """
    network = world.wrap(state.network)  # The same network, its gradients averaged over all processes.
    objective = config.diffusion.make_loss()
    weights = list(state.network.parameters())
    batch_size, halflife_images = config.training.batch, config.training.ema_halflife_images

    def losses_of(x0: Tensor, eps: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        with autocast(world.device, dtype):
            return objective(network, x0=x0, eps=eps, sigma=sigma, label=label)

    for batch in batches:
        # Dropout must not depend on the random numbers used before a restart.
        torch.manual_seed(derived_seed("dropout", config.seed, state.images, world.rank))
        factor = learning_rate_factor(state.images, progress(), config.optimizer)
        learning_rate = config.optimizer.learning_rate * factor
        set_learning_rate(state.optimizers, learning_rate)

        sigma, weight = state.sigma_sampler.sample(batch.u)
        losses = []
        tensors = batch.x0, batch.eps, sigma, batch.label, weight / len(sigma)
        microbatches = _microbatches(tensors, config.training.microbatch or len(sigma), world.device)
        for i, (*inputs, fraction) in enumerate(microbatches):
            with world.sync_gradients(network, on=i == len(microbatches) - 1):
                loss = losses_of(*inputs)
                (fraction.to(loss) * loss).sum().backward()
            losses.append(loss.detach())
        loss_by_image = torch.cat(losses).cpu()
        mean_loss = world.mean(float((weight / len(sigma)) @ loss_by_image.to(weight)))
        gradient_norm = float(clip_grad_norm_(weights, config.optimizer.max_gradient_norm or math.inf))

        state.images += batch_size
        finite = math.isfinite(mean_loss) and math.isfinite(gradient_norm)
        if finite:
            for optimizer in state.optimizers:
                optimizer.step()
            state.sigma_sampler.observe(sigma, loss_by_image, world.gather)
            update_ema(state.ema, state.network, batch_size, state.images, halflife_images)
        state.skipped += not finite
        state.skipped_in_a_row = 0 if finite else state.skipped_in_a_row + 1
        state.network.zero_grad()
        yield StepReport(mean_loss, gradient_norm, learning_rate, not finite)


def _microbatches(batch: tuple[Tensor, ...], size: int, device: torch.device) -> list[tuple[Tensor, ...]]:
    """The batch on the device, split into microbatches of at most `size` images."""

    def moved(tensor: Tensor) -> Tensor:
        dtype = state_dtype(device) if tensor.dtype == torch.float64 else tensor.dtype
        return tensor.to(device, dtype, non_blocking=True)

    return list(zip(*(moved(tensor).split(size) for tensor in batch), strict=True))
