"""Training itself: Ho et al. 2020, Algorithm 1, as a generator that yields after every step.

Nothing here shows anything, saves anything or decides when to stop: whoever iterates does.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from undiffuse.config import Config
from undiffuse.data.batches import Batch
from undiffuse.diffusion.loss import Loss
from undiffuse.training.ema import update_ema
from undiffuse.training.optimizers import learning_rate_factor, set_learning_rate, step_unless
from undiffuse.training.state import StepReport, TrainingState
from undiffuse.utils.conditions import Condition, Conditions
from undiffuse.utils.device import autocast, upload
from undiffuse.utils.randomness import derived_seed
from undiffuse.utils.sharding import whole
from undiffuse.utils.world import World


def training_steps(
    state: TrainingState,
    config: Config,
    batches: Iterator[Batch],
    progress: Callable[[], float],
    world: World,
) -> Iterator[StepReport]:
    """Takes training steps without end. `progress` returns the fraction of the budget that is spent.

    A batch whose loss or gradient is not finite changes nothing but the counts in `state`. That is decided where the
    numbers are, on the device: the program looks at the report of a step only after it has begun the next one, so that
    a GPU never waits for it.
    """
    network = world.wrap(state.network)  # The same network, its gradients averaged over all processes.
    objective_of_stage, scale = cache(config.diffusion.make_loss), state.loss_scale
    weights = list(state.network.parameters())
    batch_size, halflife_images = config.training.batch, config.training.ema_halflife_images

    def losses_of(objective: Loss, x0: Tensor, eps: Tensor, sigma: Tensor, label: Condition) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # A recorded graph may write over what the last one returned.
        with autocast(world.device, config.training.precision):
            return objective(network, x0=x0, eps=eps, sigma=sigma, label=label)

    def backward(objective: Loss, microbatches: list[tuple[Any, ...]]) -> tuple[Tensor, Tensor]:
        """Adds the gradients of the batch's loss; returns each image's loss and its fraction of the batch's."""
        losses = []
        for i, (*inputs, fraction) in enumerate(microbatches):
            with world.sync_gradients(network, on=i == len(microbatches) - 1):
                loss = losses_of(objective, *inputs)
                weighted = (fraction.to(loss) * loss).sum()
                (weighted if scale is None else scale.value * weighted).backward()
            losses.append(loss.detach())
        return torch.cat(losses), torch.cat([fraction for *_, fraction in microbatches])

    rehearsed = world.size == 1
    for batch in batches:
        spent = progress()
        objective = objective_of_stage(config.diffusion.stage(spent))
        factor = learning_rate_factor(state.images, spent, config.optimizer)
        learning_rate = config.optimizer.learning_rate * factor
        set_learning_rate(state.optimizers, learning_rate)

        sigma, weight = (upload(each, world.device) for each in state.sigma_sampler.sample(batch.u))
        parts = batch.x0, batch.eps, sigma, batch.condition, weight / len(sigma)
        microbatches = _microbatches(parts, config.training.microbatch or len(sigma), world.device)
        if not rehearsed:
            # The first backward pass decides in which order DistributedDataParallel sums gradients from then on. Were
            # it one that counts, the step after a restart would be summed in another order than without one.
            backward(objective, microbatches[:1])
            state.network.zero_grad()
            rehearsed = True
        # Dropout must not depend on the random numbers used before a restart.
        torch.manual_seed(derived_seed("dropout", config.seed, state.images, world.rank))
        loss_by_image, fraction = backward(objective, microbatches)
        mean_loss = world.mean_tensor(fraction @ loss_by_image.to(fraction))
        if scale is not None:
            scale.unscale([p.grad for p in weights if p.grad is not None])
        gradient_norm = whole(clip_grad_norm_(weights, config.optimizer.max_gradient_norm or math.inf))
        report = StepReport(torch.stack([mean_loss, gradient_norm.to(mean_loss)]), learning_rate)

        state.images += batch_size
        if scale is not None:
            scale.update(report.not_finite)
        for optimizer in state.optimizers:
            step_unless(report.not_finite, optimizer)
        update_ema(state.ema, state.network, batch_size, state.images, halflife_images, report.not_finite)
        state.network.zero_grad()
        state.sigma_sampler.observe(sigma, loss_by_image, world.gather, report.not_finite)
        state.unread.append(report)
        state.settle(but=1)
        yield report


def _microbatches(batch: tuple[Any, ...], size: int, device: torch.device) -> list[tuple[Any, ...]]:
    """The batch on the device, split into microbatches of at most `size` images."""

    def uploaded(tensor: Tensor) -> Tensor:
        return upload(tensor, device)

    parts = (part.map(uploaded) if isinstance(part, Conditions) else uploaded(part) for part in batch)
    return list(zip(*(part.split(size) for part in parts), strict=True))
