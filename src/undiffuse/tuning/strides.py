"""The levels of a discrete schedule over which a few steps give the tightest bound (Watson et al. 2021).

The bound on the bits/dim is a sum over the steps, and the term of a step from sigma to s depends on these two alone.
One evaluation of the network at each level gives the terms of all steps from there, so the best of all strides is a
cheapest path. Only the decoder, the step down to 0, takes its variance from the step before: see `best_stride`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion.denoiser import Predict, Prediction
from undiffuse.diffusion.likelihood import decoder_bits, step_bits
from undiffuse.diffusion.noise import strided
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.reverse import LogVariance, last_log_variance
from undiffuse.tuning.paths import cheapest_path
from undiffuse.utils.conditions import Condition

LEVELS = 160
"""Of a longer schedule, so many are considered besides the evenly spaced ones."""

CHUNK = 2**20
"""Pixels at once."""

Show = Callable[[int], object]
"""Gets the number of levels that are done."""


def candidates(diffusion: DiffusionConfig, steps: int) -> Float[Tensor, " n"]:
    """The falling levels from which strides are made: those of the evenly spaced stride, and others that lie the denser
    the lower they are, where the bound has most of its bits.
    """
    last = diffusion.num_timesteps - 1
    denser = {round(last * (i / (LEVELS - 1)) ** 2) for i in range(LEVELS)}
    indices = sorted(denser | set(strided(diffusion.num_timesteps, str(steps))))
    return diffusion.discrete_schedule()[indices].flip(0)


def bound_terms(
    predict: Predict,
    x0: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    label: Condition = None,
    *,
    noise: Callable[[], Tensor],
    variance: LogVariance,
    show: Show = lambda level: None,
) -> Float[Tensor, "2 n n"]:
    """The mean bits/dim of every step from level j to a lower k, and of the decoder at k where the step before came
    from j. Every level sees noise of its own.
    """
    costs, ends = torch.zeros(2, len(sigmas), len(sigmas), dtype=torch.float64), sigmas.cpu()
    for j, sigma in enumerate(sigmas):
        prediction = predict(x0 + sigma * noise().to(x0), sigma.expand(len(x0)), label)
        for chunk in torch.arange(j + 1, len(sigmas)).split(max(1, CHUNK // x0.numel())):
            repeated, images = _repeated(prediction, len(chunk)), x0.repeat(len(chunk), 1, 1, 1)
            lower = sigmas[chunk].repeat_interleave(len(x0))
            bits = step_bits(repeated, images, sigma.expand(len(images)), lower, variance)
            costs[0, j, chunk] = bits.view(len(chunk), len(x0)).mean(dim=1).double().cpu()
        for chunk in torch.arange(j).split(max(1, CHUNK // x0.numel())):
            repeated, images = _repeated(prediction, len(chunk)), x0.repeat(len(chunk), 1, 1, 1)
            before = [torch.stack([ends[i], ends[j], ends.new_zeros(())]) for i in chunk.tolist()]
            lasts = torch.tensor([last_log_variance(each) for each in before], dtype=torch.float64)
            last = lasts.to(x0).repeat_interleave(len(x0)).view(-1, 1, 1, 1)
            log_variance = variance(sigma, torch.zeros_like(last), repeated.variance_fraction, last).to(x0)
            bits = decoder_bits(images, repeated.x0, log_variance)
            costs[1, chunk, j] = bits.view(len(chunk), len(x0)).mean(dim=1).double().cpu()
        show(j + 1)
    return costs


def best_stride(costs: Float[Tensor, "2 n n"], steps: int) -> list[int]:
    """The `steps` rising indices of levels, the noisiest first, over which the bound is least.

    Raises:
        ValueError: there are fewer than two steps, or more than levels.
    """
    step, decoder = costs
    if not 2 <= steps <= len(step):
        raise ValueError(f"{steps} steps do not fit {len(step)} noise levels: choose between 2 and these.")
    # The last two steps cost what depends on both their levels.
    ending, lowest = torch.where(torch.ones_like(step).triu(1).bool(), step + decoder, torch.inf).min(dim=1)
    path = cheapest_path(step, steps - 2, ending)
    return [*path, int(lowest[path[-1]])]


def bound_of(costs: Float[Tensor, "2 n n"], path: Sequence[int]) -> float:
    """The terms of the bound over these levels, added up; the prior is the same for all."""
    step, decoder = costs
    terms = [step[j, k] for j, k in pairwise(path)]
    return float(torch.stack(terms).sum() + decoder[path[-2], path[-1]])


def _repeated(prediction: Prediction, times: int) -> Prediction:
    fraction = prediction.variance_fraction
    return Prediction(
        prediction.x0.repeat(times, 1, 1, 1), None if fraction is None else fraction.repeat(times, 1, 1, 1)
    )
