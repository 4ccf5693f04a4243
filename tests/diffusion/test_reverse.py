"""DDPM's reverse step on the axis of sigma: its mean and its three variances, for steps of any length."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, reverse

BETAS = noise.linear_betas(1000)
SCHEDULE = noise.sigmas_of_betas(BETAS)

# Some steps down from sigma to s, in order of their length.
HIGH, LOW = SCHEDULE[[200, 500, 999, 999]], SCHEDULE[[199, 400, 500, 0]]


def test_variances_of_a_stride_are_those_of_its_own_betas() -> None:
    # A strided schedule is a schedule with betas of its own (Nichol & Dhariwal 2021, Eq. 19).
    a, a_prev = 1 / (1 + HIGH**2), 1 / (1 + LOW**2)
    beta = 1 - a / a_prev
    torch.testing.assert_close(reverse.large_variance(HIGH, LOW) * a_prev, beta)
    torch.testing.assert_close(reverse.small_variance(HIGH, LOW) * a_prev, (1 - a_prev) / (1 - a) * beta)


def test_the_posterior_is_bayes_rule_for_two_normals() -> None:
    # x_s | x0 ~ N(x0, s^2) and x_sigma | x_s ~ N(x_s, sigma^2 - s^2): precisions add up.
    x, x0 = normal(4), normal(4, seed=1)
    precision = 1 / LOW**2 + 1 / (HIGH**2 - LOW**2)
    mean = (x0 / LOW**2 + x / (HIGH**2 - LOW**2)) / precision
    torch.testing.assert_close(reverse.posterior_mean(x, x0, HIGH, LOW), mean)
    torch.testing.assert_close(reverse.small_variance(HIGH, LOW), 1 / precision)


@pytest.mark.parametrize(("variance", "data_std"), [(reverse.small_variance, 0.0), (reverse.large_variance, 1.0)])
def test_each_variance_is_exact_for_its_kind_of_data(variance: reverse.LogVariance, data_std: float) -> None:
    # x starts with the variance of N(0, data_std^2) plus noise and must have it after each step (Ho et al., 3.2).
    for steps in (2, 5, 100):
        sigmas = noise.discrete_sigmas(noise.strided(1000, str(steps)), SCHEDULE)
        spread = data_std**2 + sigmas[0] ** 2
        for sigma, s in pairwise(sigmas[:-1]):
            shrink = data_std**2 / (data_std**2 + sigma**2)  # D = shrink * x.
            factor = shrink + (s / sigma) ** 2 * (1 - shrink)
            spread = factor**2 * spread + variance(sigma, s)
            torch.testing.assert_close(spread, data_std**2 + s**2)


@pytest.mark.parametrize("fraction", [-0.2, 0.0, 0.3, 1.0])
def test_the_learned_variance_interpolates_in_log_space(fraction: float) -> None:
    # Nichol & Dhariwal 2021, Eq. 15, with v the fraction; the network is free to leave the range.
    expected = reverse.small_variance(HIGH, LOW) ** (1 - fraction) * reverse.large_variance(HIGH, LOW) ** fraction
    torch.testing.assert_close(reverse.learned(HIGH, LOW, torch.full_like(HIGH, fraction)).exp(), expected)


@pytest.mark.parametrize(
    ("variance", "plain"), [(reverse.small, reverse.small_variance), (reverse.large, reverse.large_variance)]
)
def test_fixed_variances_ignore_the_variance_fraction(
    variance: reverse.LogVariance, plain: Callable[[Tensor, Tensor], Tensor]
) -> None:
    for fraction in (None, torch.full_like(HIGH, 0.3)):
        torch.testing.assert_close(variance(HIGH, LOW, fraction).exp(), plain(HIGH, LOW))


@pytest.mark.parametrize("variance", [reverse.small, reverse.large])
def test_in_the_step_to_0_a_fixed_variance_is_last(variance: reverse.LogVariance) -> None:
    sigma, s = SCHEDULE[[0, 5]], torch.tensor([0.0, float(SCHEDULE[0])], dtype=torch.float64)
    assert variance(sigma, s)[0] == -math.inf
    to_zero, other = variance(sigma, s, None, -3.5)
    assert to_zero == -3.5
    assert other == variance(sigma[1], s[1])


def test_in_the_step_to_0_learned_goes_from_last_to_beta() -> None:
    sigma, s = SCHEDULE[:1], torch.zeros(1, dtype=torch.float64)
    for fraction in (0.0, 0.25, 1.0):
        expected = (1 - fraction) * -11.0 + fraction * math.log(BETAS[0])
        learned = reverse.learned(sigma, s, torch.full((1,), fraction, dtype=torch.float64), -11.0)
        torch.testing.assert_close(learned, torch.tensor([expected], dtype=torch.float64))


def clipped_log_variance(betas: Tensor) -> float:
    """The first beta tilde is 0, and replaced by the second (Ho et al. 2020, released code)."""
    alpha_bar = torch.cumprod(1 - betas, 0)
    return math.log((1 - alpha_bar[0]) / (1 - alpha_bar[1]) * betas[1])


@pytest.mark.parametrize("betas", [noise.linear_betas(1000), noise.cosine_betas(4000), noise.cosine_betas(2)])
def test_last_is_ddpms_variance_of_the_step_before(betas: Tensor) -> None:
    schedule = noise.sigmas_of_betas(betas)
    sigmas = noise.discrete_sigmas(range(len(schedule)), schedule)
    assert reverse.last_log_variance(sigmas) == pytest.approx(clipped_log_variance(betas), rel=1e-9)


def test_one_step_has_no_step_before_it() -> None:
    with pytest.raises(ValueError, match="at least 2 steps"):
        reverse.last_log_variance(torch.tensor([80.0, 0.0]))


def test_a_variance_that_was_not_learned_is_refused() -> None:
    with pytest.raises(ValueError, match="did not learn its variance: choose small or large"):
        reverse.learned(HIGH, LOW, None)
