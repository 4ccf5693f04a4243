"""Schedules against the formulas of the papers, distributions by their quantiles, sigmas one by one."""

import math
from collections.abc import Callable
from itertools import pairwise
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
def test_linear_betas_rise_evenly_and_scale_with_length(T: int) -> None:
    same(noise.linear_betas(T), [1000 / T * (1e-4 + (0.02 - 1e-4) * t / (T - 1)) for t in range(T)])


def test_the_shortest_schedules_end_before_their_images_are_nothing_but_noise() -> None:
    shortest = {name: row.betas(row.min_timesteps) for name, row in noise.SCHEDULES.items()}
    assert all(bool(((betas > 0) & (betas < 1)).all()) for betas in shortest.values())
    assert float(noise.linear_betas(len(shortest["linear"]) - 1)[-1]) == 1, "one step fewer destroys the image"


@pytest.mark.parametrize("T", [4, 1000, 4000])
def test_cosine_betas_give_a_squared_cosine_up_to_the_cap(T: int) -> None:
    def f(t: int) -> float:
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f(t) / f(t - 1), 0.999) for t in range(1, T + 1)]
    same(noise.cosine_betas(T), betas)
    assert betas[-1] == 0.999, "the last cosine beta is capped"
    # The alpha bar of Eq. 17 wherever no beta is capped: at all levels except the last.
    sigmas = noise.sigmas_of_betas(noise.cosine_betas(T))
    same(sigmas[:-1], [math.sqrt(f(0) / f(t) - 1) for t in range(1, T)])


@pytest.mark.parametrize("betas", [noise.linear_betas(1000), noise.cosine_betas(1000), f64([0.5, 0.2])])
def test_sigma_is_the_root_of_noise_over_signal_variance(betas: torch.Tensor) -> None:
    alpha_bar, expected = 1.0, []
    for beta in betas.tolist():
        alpha_bar *= 1 - beta
        expected.append(math.sqrt((1 - alpha_bar) / alpha_bar))
    same(noise.sigmas_of_betas(betas), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discrete_uniform_samples_every_level_equally_often(dtype: torch.dtype) -> None:
    levels = noise.sigmas_of_betas(noise.linear_betas(1000))
    u = (torch.arange(10_000, dtype=dtype) + 0.5) / 10_000
    assert torch.equal(noise.discrete_uniform(levels)(u), levels.repeat_interleave(10).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [21, 1000, 1024, 4000])
def test_discrete_uniform_reaches_both_ends_and_no_further(length: int, dtype: torch.dtype) -> None:
    levels = noise.sigmas_of_betas(noise.linear_betas(length)).to(dtype)
    just_below_one = 1 - torch.finfo(dtype).eps / 2
    ends = noise.discrete_uniform(levels)(torch.tensor([0.0, just_below_one], dtype=dtype))
    assert torch.equal(ends, levels[[0, -1]])


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.5, 0.1)])
def test_log_normal_has_the_quantiles_of_a_log_normal(mean: float, std: float) -> None:
    same(noise.log_normal(mean, std)(f64(QUANTILES)), [math.exp(NormalDist(mean, std).inv_cdf(u)) for u in QUANTILES])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.7)])
def test_logit_normal_is_normal_in_the_logit_of_flow_time(mean: float, std: float) -> None:
    sigma = noise.logit_normal(mean, std)(f64(QUANTILES))
    t = sigma / (1 + sigma)
    torch.testing.assert_close(torch.logit(t), f64([NormalDist(mean, std).inv_cdf(u) for u in QUANTILES]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_uniform_number_gives_a_sigma_of_0_or_infinity(dtype: torch.dtype) -> None:
    sigma = noise.log_normal(-1.2, 1.2)(torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype))
    assert (sigma > 0).all()
    assert torch.isfinite(sigma).all()


@pytest.mark.parametrize("rho", [1.0, 7.0])
@pytest.mark.parametrize("steps", [2, 18, 200])
def test_karras_sigmas_are_equation_5_and_then_0(steps: int, rho: float) -> None:
    low, high = 0.002, 80.0
    roots = [high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho)) for i in range(steps)]
    sigmas = noise.karras_sigmas(steps, low, high, rho)
    same(sigmas, [root**rho for root in roots] + [0.0])
    same(sigmas[[0, -2, -1]], [high, low, 0.0])


@pytest.mark.parametrize("steps", [2, 18, 200])
def test_log_snr_sigmas_are_evenly_spaced_in_log_snr(steps: int) -> None:
    sigmas = noise.log_snr_sigmas(steps, 0.002, 80.0)
    log_snr = [-2 * math.log(80.0) + i / (steps - 1) * (2 * math.log(80.0) - 2 * math.log(0.002)) for i in range(steps)]
    same(sigmas, [math.exp(-value / 2) for value in log_snr] + [0.0])


@pytest.mark.parametrize("make", [noise.karras_sigmas, noise.log_snr_sigmas])
def test_one_step_goes_from_the_highest_sigma_to_0(make: Callable[..., torch.Tensor]) -> None:
    same(make(1, 0.002, 80.0), [80.0, 0.0])


@pytest.mark.parametrize("steps", [-1, 0])
@pytest.mark.parametrize("make", [noise.karras_sigmas, noise.log_snr_sigmas])
def test_sigmas_for_less_than_one_step_are_refused(make: Callable[..., torch.Tensor], steps: int) -> None:
    with pytest.raises(ValueError, match=f"^{steps} sampling steps are too few"):
        make(steps, 0.002, 80.0)


def test_discrete_sigmas_fall_from_the_noisiest_to_0() -> None:
    levels = f64([0.1, 0.5, 2.0, 9.0])
    assert noise.discrete_sigmas([0, 2, 3], levels).tolist() == [9.0, 2.0, 0.1, 0.0]


@pytest.mark.parametrize("T", [2, 50, 1000])
def test_a_number_is_a_stride_of_so_many_even_indices(T: int) -> None:
    for steps in range(1, T + 1):
        kept = noise.strided(T, str(steps))
        assert len(kept) == steps
        assert kept[0] == 0
        if steps > 1:
            assert kept[-1] == T - 1
            spacings = [after - before for before, after in pairwise(kept)]
            assert min(spacings) >= 1
            assert max(spacings) - min(spacings) <= 1


@pytest.mark.parametrize(
    ("T", "counts"), [(1000, (10, 15, 20)), (1000, (1, 1, 1, 1)), (10, (3, 3, 2)), (7, (3, 1, 2)), (4000, (250, 4))]
)
def test_several_counts_stride_equal_sections(T: int, counts: tuple[int, ...]) -> None:
    kept = noise.strided(T, ",".join(map(str, counts)))
    lengths = [T // len(counts) + (section < T % len(counts)) for section in range(len(counts))]
    start = 0
    for length, count in zip(lengths, counts, strict=True):
        inside = [index for index in kept if start <= index < start + length]
        assert inside == [start + index for index in noise.strided(length, str(count))]
        start += length
    assert kept == sorted(set(kept))
    assert len(kept) == sum(counts)


@pytest.mark.parametrize(("T", "count", "spacing"), [(1000, 50, 20), (1000, 1, 1000), (1000, 1000, 1), (10, 4, 3)])
def test_a_ddim_stride_keeps_every_kth_index(T: int, count: int, spacing: int) -> None:
    assert noise.strided(T, f"ddim{count}") == [i * spacing for i in range(count)]


@pytest.mark.parametrize(
    ("stride", "words"),
    [
        ("1001", "1001 steps do not fit 1000 timesteps: choose between 1 and 1000"),
        ("10,501", "501 steps do not fit 500 timesteps: choose between 1 and 500"),
        ("ddim999", "ddim999 is not a stride of 1000 timesteps: no whole spacing keeps 999 of them"),
        ("ddim1001", "ddim1001 is not a stride of 1000 timesteps"),
        *((stride, "write for example 50, ddim50 or 10,15,20") for stride in ("", "0", "-5", "ten", "1.5", "²", "٣")),
        *((stride, "write for example 50, ddim50 or 10,15,20") for stride in ("10,", ",10", "10,0", "ddim", "ddim0")),
    ],
)
def test_an_impossible_stride_is_refused(stride: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        noise.strided(1000, stride)
    assert "\n" not in str(refused.value)
