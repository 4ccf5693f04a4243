"""The run's own many-step trajectories, which few steps are to follow."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion import samplers
from undiffuse.diffusion.denoiser import Predict, Prediction
from undiffuse.diffusion.samplers import Step
from undiffuse.sampling.labels import labels_for
from undiffuse.sampling.model import Model, Wrap, last, seeded_noise, steps_from
from undiffuse.sampling.options import noise_levels
from undiffuse.tuning.paths import cheapest_path
from undiffuse.utils.conditions import Condition
from undiffuse.utils.device import state_dtype

LEVELS = 61
"""Of a trajectory, 0 included: those that GITS takes (Chen et al. 2024)."""

Show = Callable[[int], object]
"""Gets the number of steps taken."""


def teacher_sampling(sampling: SamplingConfig) -> SamplingConfig:
    """The same model, guided alike, along the probability flow in many steps: fourth order, so that its own error is
    far below that of few steps.
    """
    return replace(sampling, sampler="ipndm", order=4, steps=LEVELS - 1, sigmas="karras")


def teacher_levels(model: Model, sampling: SamplingConfig) -> Float[Tensor, " n"]:
    """The falling noise levels of the trajectories, from which those of few steps are first chosen."""
    return noise_levels(model.diffusion, teacher_sampling(sampling))


def trajectories(
    model: Model, sampling: SamplingConfig, seeds: Sequence[int], show: Show = lambda step: None
) -> tuple[Float[Tensor, "n b d"], Float[Tensor, "m b d"]]:
    """The states of every level down to 0, and the slopes dx/dsigma at all but the last, of images as long rows."""
    sigmas = teacher_levels(model, sampling).to(state_dtype(model.device))
    x = start(model, seeds, sigmas[0])
    states, slopes = [x], []
    for i, step in enumerate(_steps(model, x, sigmas, seeds, teacher_sampling(sampling)), 1):
        slopes.append((states[-1] - step.x0) / sigmas[i - 1])
        states.append(step.x)
        show(i)
    return torch.stack(states).flatten(2), torch.stack(slopes).flatten(2)


def euler_costs(
    sigmas: Float[Tensor, " n"], states: Float[Tensor, "n b d"], slopes: Float[Tensor, "m b d"]
) -> Float[Tensor, "2 n n"]:
    """How far one Euler step from level j misses the trajectory at level k > j, two ways (Chen et al. 2024).

    First the mean distance; then how much farther from the straight line between the trajectory's ends it leads than
    the trajectory itself. Trajectories of one model bend alike, so that a few show where steps must be short.
    """
    cost = torch.zeros(2, len(sigmas), len(sigmas), dtype=torch.float64)
    line = states[-1] - states[0]
    deviations = _distance_from(line, states - states[0])
    for j, (sigma, slope) in enumerate(zip(sigmas[:-1], slopes, strict=True)):
        straight = states[j] + (sigmas[j + 1 :] - sigma).to(states)[:, None, None] * slope
        cost[0, j, j + 1 :] = (straight - states[j + 1 :]).norm(dim=2).mean(dim=1).cpu()
        farther = _distance_from(line, straight - states[0]) - deviations[j + 1 :]
        cost[1, j, j + 1 :] = farther.mean(dim=1).cpu()
    return cost


def _distance_from(line: Float[Tensor, "b d"], points: Float[Tensor, "n b d"]) -> Float[Tensor, "n b"]:
    unit = line / line.norm(dim=1, keepdim=True)
    along = (points * unit).sum(dim=2, keepdim=True)
    return (points - along * unit).norm(dim=2)


def gits_sigmas(
    sigmas: Float[Tensor, " n"], cost: Float[Tensor, "n n"], steps: int, coefficient: float = 1.0
) -> tuple[float, ...]:
    """`steps` of the levels, the first among them, from which Euler steps down to 0 miss least in sum."""
    path = cheapest_path(cost[:-1, :-1], steps - 1, cost[:-1, -1], coefficient)
    return tuple(sigmas[path].tolist())


def end_points(
    model: Model,
    sampling: SamplingConfig,
    sigmas: Sequence[float],
    seeds: Sequence[int],
    wrap: Wrap = lambda predict: predict,
) -> Float[Tensor, "b d"]:
    """What the sampler itself makes of the seeds along these levels and down to 0, images as long rows."""
    levels = torch.tensor([*sigmas, 0.0], dtype=torch.float64)
    return last(_steps(model, start(model, seeds, levels[0]), levels, seeds, sampling, wrap)).x.flatten(1)


class Memory:
    """Keeps what a model predicted of the same images at the levels of the last few searches.

    What a sampler without fresh noise asks at a level depends on the levels down to that one alone, so that levels
    which differ in their last few only cost these.
    """

    def __init__(self, size: int):
        self.size = size
        self.known: OrderedDict[tuple[int, tuple[float, ...]], Prediction] = OrderedDict()

    def wrap(self, sigmas: Sequence[float]) -> Wrap:
        """Answers from memory where it can, in sampling along these levels."""
        calls = count()

        def remembering(predict: Predict) -> Predict:
            def predict_once(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
                reached = 1 - 1e-6  # Of the level, which may have been rounded.
                key = next(calls), tuple(each for each in sigmas if each > reached * float(sigma[0]))
                if key not in self.known:
                    self.known[key] = predict(x, sigma, label)
                self.known.move_to_end(key)
                while len(self.known) > self.size:
                    self.known.popitem(last=False)
                return self.known[key]

            return predict_once

        return remembering


def start(model: Model, seeds: Sequence[int], sigma: Tensor) -> Float[Tensor, "b c h w"]:
    """The noise that the seeds begin with."""
    return samplers.starting_noise(seeded_noise(model, seeds)(), sigma.to(state_dtype(model.device)))


def _steps(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    seeds: Sequence[int],
    sampling: SamplingConfig,
    wrap: Wrap = lambda predict: predict,
) -> Iterator[Step]:
    told = labels_for(model.class_names, seeds, None)
    return steps_from(model, x, sigmas, told, sampling, seeded_noise(model, seeds), wrap)
