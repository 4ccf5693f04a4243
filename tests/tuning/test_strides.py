"""Strides for the bound: the sum that the bound itself is, and the least of all strides."""

from itertools import combinations

import pytest
import torch
from helpers.gaussians import gaussian, noise_source
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import likelihood, reverse
from undiffuse.diffusion.denoiser import Predict, Prediction, without_variance
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.reverse import LogVariance
from undiffuse.tuning.strides import best_stride, bound_of, bound_terms, candidates
from undiffuse.utils.conditions import Condition

DISCRETE = DiffusionConfig(
    parametrization="v", sigma_sampler="discrete_uniform", schedule="cosine", num_timesteps=10, objective="hybrid"
)
LEVELS = DISCRETE.discrete_schedule().flip(0)
X0 = normal(6, 1, 3, 3).mul(0.4).clamp(-1, 1)


def with_variance(predict: Predict) -> Predict:
    """The same with a variance fraction that depends on the image and the level."""

    def predict_both(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
        x0 = predict(x, sigma, label).x0
        return Prediction(x0, torch.sigmoid(x0 + sigma.view(-1, 1, 1, 1).log() / 3))

    return predict_both


VARIANCES = [pytest.param(reverse.small, id="small"), pytest.param(reverse.learned, id="learned")]


def table(variance: LogVariance, draws: int = 1) -> Tensor:
    predict = with_variance(without_variance(gaussian(0.1, 0.5)))
    x0 = X0.repeat(draws, 1, 1, 1)
    return bound_terms(predict, x0, LEVELS, noise=noise_source(*x0.shape, seed=1), variance=variance)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_best_stride_is_the_best_of_all(variance: LogVariance) -> None:
    costs = table(variance)
    for steps in (2, 3, 5, 9, 10):
        every = [(0, *rest) for rest in combinations(range(1, 10), steps - 1)]
        best = min(every, key=lambda path: bound_of(costs, path))
        assert best_stride(costs, steps) == list(best)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("steps", [2, 4, 10])
def test_the_terms_add_up_to_the_bound_over_even_strides(variance: LogVariance, steps: int) -> None:
    """With the same noise at each level, to the last digits."""
    sigmas = DISCRETE.discrete_sigmas(steps)
    path = [LEVELS.tolist().index(sigma) for sigma in sigmas[:-1].tolist()]
    eps = [normal(*X0.shape, seed=level) for level in range(10)]
    every, kept = iter(eps), iter([eps[level] for level in path])
    predict = with_variance(without_variance(gaussian(0.1, 0.5)))
    costs = bound_terms(predict, X0, LEVELS, noise=lambda: next(every), variance=variance)
    bound = likelihood.vlb(predict, X0, sigmas, noise=lambda: next(kept), variance=variance)
    assert bound_of(costs, path) == pytest.approx(float(bound.terms.sum(dim=1).mean()), rel=1e-10)
    assert bound_of(costs, best_stride(costs, steps)) <= bound_of(costs, path)


def test_the_candidates_hold_the_even_stride_and_the_lowest_levels() -> None:
    diffusion = DiffusionConfig(sigma_sampler="discrete_uniform", num_timesteps=1000)
    levels = candidates(diffusion, 128)
    assert (levels.diff() < 0).all()
    assert set(diffusion.discrete_sigmas(128)[:-1].tolist()) <= set(levels.tolist())
    assert set(diffusion.discrete_schedule()[:10].tolist()) <= set(levels.tolist())
    assert len(levels) < 300
    assert torch.equal(candidates(DISCRETE, 4), LEVELS)


def test_there_are_at_least_two_steps_and_at_most_as_many_as_levels() -> None:
    costs = table(reverse.small)
    for steps in (1, 11):
        with pytest.raises(ValueError, match=f"{steps} steps do not fit 10 noise levels"):
            best_stride(costs, steps)
