"""The schedules against the papers' formulas written out, the draws by their quantiles, the grids level by level."""

import math
from statistics import NormalDist

import pytest
import torch

from undiffuse.diffusion import noise

QUANTILES = (1e-9, 0.001, 0.1, 0.25, 0.5, 0.6, 0.975, 0.999999)


def f64(values: list[float] | tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(actual: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, f64(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize("T", [25, 1000, 4000])
def test_linear_betas_rise_evenly_from_1e_4_to_0_02_scaled_by_1000_over_the_length(T: int) -> None:
    same(noise.linear_betas(T), [1000 / T * (1e-4 + (0.02 - 1e-4) * t / (T - 1)) for t in range(T)])


@pytest.mark.parametrize("T", [4, 1000, 4000])
def test_cosine_betas_make_alpha_bar_a_squared_cosine_until_the_cap(T: int) -> None:
    def f(t: int) -> float:
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f(t) / f(t - 1), 0.999) for t in range(1, T + 1)]
    same(noise.cosine_betas(T), betas)
    assert betas[-1] == 0.999, "the last cosine beta is the capped one"
    # Eq. 17's alpha bar itself, wherever no beta is capped: all but the last level.
    sigmas = noise.sigmas_of_betas(noise.cosine_betas(T))
    same(sigmas[:-1], [math.sqrt(f(0) / f(t) - 1) for t in range(1, T)])


@pytest.mark.parametrize("betas", [noise.linear_betas(1000), noise.cosine_betas(1000), f64([0.5, 0.2])])
def test_a_chain_level_is_the_root_of_noise_variance_over_signal_variance(betas: torch.Tensor) -> None:
    alpha_bar, expected = 1.0, []
    for beta in betas.tolist():
        alpha_bar *= 1 - beta
        expected.append(math.sqrt((1 - alpha_bar) / alpha_bar))
    same(noise.sigmas_of_betas(betas), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discrete_uniform_draws_every_level_equally_often(dtype: torch.dtype) -> None:
    levels = noise.sigmas_of_betas(noise.linear_betas(1000))
    u = (torch.arange(10_000, dtype=dtype) + 0.5) / 10_000
    assert torch.equal(noise.discrete_uniform(levels)(u), levels.repeat_interleave(10).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [21, 1000, 1024, 4000])
def test_discrete_uniform_reaches_both_ends_and_nothing_beyond(length: int, dtype: torch.dtype) -> None:
    levels = noise.sigmas_of_betas(noise.linear_betas(length)).to(dtype)
    just_below_one = 1 - torch.finfo(dtype).eps / 2
    drawn = noise.discrete_uniform(levels)(torch.tensor([0.0, just_below_one], dtype=dtype))
    assert torch.equal(drawn, levels[[0, -1]])


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.5, 0.1)])
def test_log_normal_has_the_quantiles_of_a_log_normal(mean: float, std: float) -> None:
    same(noise.log_normal(mean, std)(f64(QUANTILES)), [math.exp(NormalDist(mean, std).inv_cdf(u)) for u in QUANTILES])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.7)])
def test_logit_normal_has_the_quantiles_of_a_normal_in_the_logit_of_flow_time(mean: float, std: float) -> None:
    sigma = noise.logit_normal(mean, std)(f64(QUANTILES))
    t = sigma / (1 + sigma)
    torch.testing.assert_close(torch.logit(t), f64([NormalDist(mean, std).inv_cdf(u) for u in QUANTILES]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_uniform_number_draws_a_level_of_zero_or_infinity(dtype: torch.dtype) -> None:
    sigma = noise.log_normal(-1.2, 1.2)(torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype))
    assert (sigma > 0).all()
    assert torch.isfinite(sigma).all()


@pytest.mark.parametrize("rho", [1.0, 7.0])
@pytest.mark.parametrize("steps", [2, 18, 200])
def test_karras_grid_is_equation_5_and_then_zero(steps: int, rho: float) -> None:
    low, high = 0.002, 80.0
    roots = [high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho)) for i in range(steps)]
    grid = noise.karras_grid(steps, low, high, rho)
    same(grid, [root**rho for root in roots] + [0.0])
    same(grid[[0, -2, -1]], [high, low, 0.0])


def test_one_karras_step_goes_from_the_highest_level_to_zero() -> None:
    same(noise.karras_grid(1, 0.002, 80.0), [80.0, 0.0])


@pytest.mark.parametrize("T", [2, 50, 1000])
def test_strided_grid_has_first_and_last_level_and_even_strides_for_every_number_of_steps(T: int) -> None:
    levels = torch.arange(1, T + 1, dtype=torch.float64)  # Each level is its index plus 1.
    for steps in range(1, T + 1):
        grid = noise.strided_grid(steps, levels)
        assert len(grid) == steps + 1
        assert grid[0] == levels[-1]
        assert grid[-1] == 0
        if steps > 1:
            assert grid[-2] == levels[0]
            strides = grid[:-2] - grid[1:-1]
            assert strides.min() >= 1
            assert strides.max() - strides.min() <= 1


def test_as_many_steps_as_levels_walk_the_whole_chain() -> None:
    levels = noise.sigmas_of_betas(noise.cosine_betas(1000))
    assert torch.equal(noise.strided_grid(1000, levels), torch.cat([levels.flip(0), levels.new_zeros(1)]))


@pytest.mark.parametrize("steps", [-1, 0, 51])
def test_a_chain_refuses_step_counts_that_it_does_not_have(steps: int) -> None:
    with pytest.raises(ValueError, match=f"^{steps} steps do not fit .* between 1 and 50"):
        noise.strided_grid(steps, noise.sigmas_of_betas(noise.linear_betas(50)))


@pytest.mark.parametrize("steps", [-1, 0])
def test_the_karras_grid_refuses_fewer_than_one_step(steps: int) -> None:
    with pytest.raises(ValueError, match=f"^{steps} sampling steps are too few"):
        noise.karras_grid(steps, 0.002, 80.0)
