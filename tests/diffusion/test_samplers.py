"""Samplers against closed forms: the ODE of Gaussian data, DDIM and DDPM as their papers write them, and moments."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, samplers
from undiffuse.diffusion.denoiser import Denoise
from undiffuse.diffusion.samplers import Step

MEAN, STD = 0.3, 0.5
BETAS = noise.linear_betas(1000)
CHAIN = noise.sigmas_of_betas(BETAS)


def gaussian(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """The exact denoiser of pixels that are N(MEAN, STD^2)."""
    variance = sigma.view(-1, 1, 1, 1) ** 2
    return (STD**2 * x + variance * MEAN) / (STD**2 + variance)


def curved(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """A denoiser with no closed form: each pixel depends on its neighbour, the level and the label."""
    level = sigma.view(-1, 1, 1, 1)
    shift = 0.0 if label is None else 0.1 * label.view(-1, 1, 1, 1)
    return torch.tanh(x / (1 + level**2) + 0.2 * x.roll(1, dims=-1) / (1 + level)) + shift


def on_the_path(x: Tensor, start: Tensor, sigma: Tensor) -> Tensor:
    """Where the ODE through x at level `start` is at `sigma`: x - MEAN shrinks with the marginal's deviation."""
    return MEAN + (x - MEAN) * torch.sqrt((STD**2 + sigma**2) / (STD**2 + start**2))


def even_grid(steps: int) -> Tensor:
    return torch.linspace(2, 0, steps + 1, dtype=torch.float64)


def karras_grid(steps: int) -> Tensor:
    return noise.karras_grid(steps, sigma_min=1e-4, sigma_max=80)


@pytest.mark.parametrize("grid", [even_grid, karras_grid])
@pytest.mark.parametrize(("sampler", "order"), [(samplers.euler, 1), (samplers.heun, 2)])
def test_the_error_falls_with_the_samplers_order(sampler: Callable, order: int, grid: Callable[[int], Tensor]) -> None:
    step_counts, errors = [64, 96, 128, 192, 256], []
    for steps in step_counts:
        sigmas = grid(steps)
        start = sigmas[0] * normal(1, 1, 4, 4)
        walk = list(sampler(gaussian, start, sigmas))
        errors.append(max(float((s.x - on_the_path(start, sigmas[0], s.sigma)).abs().max()) for s in walk))
    slope = np.polyfit(np.log(step_counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.1)


@pytest.mark.parametrize("sampler", [samplers.euler, samplers.heun])
def test_data_at_one_point_is_reached_exactly_in_any_number_of_steps(sampler: Callable) -> None:
    start = 80 * normal(2, 1, 4, 4)
    for steps in (1, 2, 7):
        *_, end = sampler(lambda x, sigma, label: torch.full_like(x, 0.4), start, noise.karras_grid(steps, 0.002, 80))
        torch.testing.assert_close(end.x, torch.full_like(start, 0.4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_euler_on_the_chain_is_ddim_with_eta_0(steps: int) -> None:
    sigmas = noise.strided_grid(steps, CHAIN)
    alpha_bar = torch.cumprod(1 - BETAS, 0)
    t = torch.searchsorted(CHAIN, sigmas[:-1])
    x_T, label = normal(3, 1, 4, 4), torch.tensor([0, 1, 2])

    x_t = x_T
    walk = samplers.euler(curved, samplers.starting_noise(x_T, sigmas[0]), sigmas, label)
    for i, step in enumerate(walk):
        a = alpha_bar[t[i]]
        a_prev = alpha_bar[t[i + 1]] if i + 1 < steps else torch.ones(())
        # Song et al. 2021, Eq. 12 with sigma_t = 0.
        x0 = curved(x_t / a.sqrt(), sigmas[i].expand(3), label)
        eps = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
        x_t = a_prev.sqrt() * x0 + (1 - a_prev).sqrt() * eps
        torch.testing.assert_close(step.x0, x0, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(step.x * a_prev.sqrt(), x_t, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variance", [samplers.small_variance, samplers.large_variance])
def test_ancestral_is_ddpms_posterior_step_by_step(variance: samplers.Variance) -> None:
    # Ho et al. 2020, Eq. 6 and 7 and Algorithm 2, on x_t with t from 999 to 0.
    alpha, alpha_bar = 1 - BETAS, torch.cumprod(1 - BETAS, 0)
    alpha_bar_prev = torch.cat([torch.ones(1), alpha_bar[:-1]])
    beta_tilde = (1 - alpha_bar_prev) / (1 - alpha_bar) * BETAS
    sigma_squared = beta_tilde if variance is samplers.small_variance else BETAS
    x_T, label = normal(3, 1, 4, 4), torch.tensor([0, 1, 2])
    ours, theirs = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)

    x_t = x_T
    sigmas = noise.strided_grid(1000, CHAIN)
    start = samplers.starting_noise(x_T, sigmas[0])
    draw = lambda: torch.randn(3, 1, 4, 4, generator=ours)  # noqa: E731
    walk = samplers.ancestral(curved, start, sigmas, label, noise=draw, variance=variance)
    for t, step in zip(reversed(range(1000)), walk, strict=True):
        x0 = curved(x_t / alpha_bar[t].sqrt(), CHAIN[t].expand(3), label)
        mean = (
            alpha_bar_prev[t].sqrt() * BETAS[t] / (1 - alpha_bar[t]) * x0
            + alpha[t].sqrt() * (1 - alpha_bar_prev[t]) / (1 - alpha_bar[t]) * x_t
        )
        z = torch.randn(3, 1, 4, 4, generator=theirs).double() if t > 0 else 0.0
        x_t = mean + sigma_squared[t].sqrt() * z
        torch.testing.assert_close(step.x * alpha_bar_prev[t].sqrt(), x_t, rtol=1e-9, atol=1e-9)


def test_both_variances_of_a_longer_stride_are_those_of_the_chain_with_that_stride() -> None:
    # A strided chain is a chain with betas of its own (Nichol & Dhariwal 2021, Eq. 19).
    low, high = CHAIN[[0, 100, 700]], CHAIN[[200, 500, 999]]
    a, a_prev = 1 / (1 + high**2), 1 / (1 + low**2)
    beta = 1 - a / a_prev
    torch.testing.assert_close(samplers.large_variance(high, low) * a_prev, beta)
    torch.testing.assert_close(samplers.small_variance(high, low) * a_prev, (1 - a_prev) / (1 - a) * beta)


@pytest.mark.parametrize("variance", [samplers.small_variance, samplers.large_variance])
def test_a_thousand_ancestral_steps_reproduce_mean_and_variance_of_the_data(variance: samplers.Variance) -> None:
    pixels = 10_000
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(1, 1, 100, 100, dtype=torch.float64, generator=generator)  # noqa: E731
    sigmas = noise.strided_grid(1000, CHAIN)
    start = samplers.starting_noise(draw(), sigmas[0])
    *_, end = samplers.ancestral(gaussian, start, sigmas, noise=draw, variance=variance)
    # The pixels are independent and Gaussian: five standard errors of the mean and of the variance. The steps' own bias
    # (-1.6% of the variance for the small, 0.3% for the large) lies well below the latter, 7.1%.
    assert float(end.x.mean()) == pytest.approx(MEAN, abs=5 * STD / math.sqrt(pixels))
    assert float(end.x.var()) == pytest.approx(STD**2, rel=5 * math.sqrt(2 / pixels))


@pytest.mark.parametrize(
    ("variance", "data_std"), [(samplers.small_variance, 0.0), (samplers.large_variance, 1.0)], ids=["small", "large"]
)
def test_each_variance_is_exact_for_the_data_it_is_meant_for_in_any_number_of_steps(
    variance: samplers.Variance, data_std: float
) -> None:
    # x starts with the variance of N(0, data_std^2) plus noise and must have it after each step (Ho et al., 3.2).
    for steps in (2, 5, 100):
        grid = noise.strided_grid(steps, CHAIN)
        spread = data_std**2 + grid[0] ** 2
        for sigma, s in pairwise(grid[:-1]):
            shrink = data_std**2 / (data_std**2 + sigma**2)  # D = shrink * x.
            factor = shrink + (s / sigma) ** 2 * (1 - shrink)
            spread = factor**2 * spread + variance(sigma, s)
            torch.testing.assert_close(spread, data_std**2 + s**2)


def all_samplers() -> list[Callable[..., Iterator[Step]]]:
    generator = torch.Generator().manual_seed(0)

    def ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Iterator[Step]:
        return samplers.ancestral(denoise, x, sigmas, noise=lambda: torch.randn(2, 1, 4, 4, generator=generator))

    return [samplers.euler, samplers.heun, ancestral]


@pytest.mark.parametrize("sampler", all_samplers(), ids=["euler", "heun", "ancestral"])
def test_a_sampler_yields_every_level_and_ends_on_its_last_estimate(sampler: Callable[..., Iterator[Step]]) -> None:
    sigmas = noise.strided_grid(7, CHAIN)
    walk = list(sampler(curved, samplers.starting_noise(normal(2, 1, 4, 4), sigmas[0]), sigmas))
    assert [float(step.sigma) for step in walk] == sigmas[1:].tolist()
    torch.testing.assert_close(walk[-1].x, walk[-1].x0, rtol=0, atol=1e-14)


def test_ancestral_draws_noise_for_every_step_but_the_last() -> None:
    drawn = []

    def draw() -> Tensor:
        drawn.append(normal(2, 1, 4, 4, seed=len(drawn)))
        return drawn[-1]

    sigmas = noise.strided_grid(7, CHAIN)
    list(samplers.ancestral(curved, normal(2, 1, 4, 4), sigmas, noise=draw))
    assert len(drawn) == 6


def test_sampling_starts_from_ddpms_unit_normal_noise_in_the_grids_precision() -> None:
    x_T = normal(2, 1, 4, 4).float()
    for sigma in (CHAIN[-1], torch.tensor(2e4, dtype=torch.float64)):
        start = samplers.starting_noise(x_T, sigma)
        assert start.dtype == torch.float64
        alpha_bar = 1 / (1 + sigma**2)
        torch.testing.assert_close(start * alpha_bar.sqrt(), x_T.double(), rtol=1e-12, atol=0)
