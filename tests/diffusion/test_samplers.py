"""Samplers against closed forms: the flow of Gaussian data, the algorithms as their papers write them, and moments."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from helpers.gaussians import Impulses, gaussian, noise_source, on_the_path
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, reverse, samplers
from undiffuse.diffusion.denoiser import Denoise, Prediction, without_variance
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.samplers import Step

MEAN, STD = 0.3, 0.5
GAUSSIAN = gaussian(MEAN, STD)
BETAS = noise.linear_betas(1000)
SCHEDULE = noise.sigmas_of_betas(BETAS)
ALPHA_BAR = torch.cumprod(1 - BETAS, 0)

Sampler = Callable[..., Iterator[Step]]


def discrete_sigmas(steps: int) -> Tensor:
    return noise.discrete_sigmas(noise.strided(1000, str(steps)), SCHEDULE)


def curved(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """A denoiser without a closed form: each pixel depends on its neighbor, sigma and the label."""
    level = sigma.view(-1, 1, 1, 1)
    shift = 0.0 if label is None else 0.1 * label.view(-1, 1, 1, 1)
    return torch.tanh(x / (1 + level**2) + 0.2 * x.roll(1, dims=-1) / (1 + level)) + shift


def ancestral(denoise: Denoise, *arguments: Tensor, **options: Callable) -> Iterator[Step]:
    return samplers.ancestral(without_variance(denoise), *arguments, **options)


DETERMINISTIC: dict[str, Sampler] = {
    "euler": samplers.euler,
    "heun": samplers.heun,
    "dpmpp_2m": samplers.dpmpp_2m,
    "lms": samplers.lms,
    "ipndm": samplers.ipndm,
}
STOCHASTIC: dict[str, Sampler] = {
    "stochastic heun": partial(samplers.heun, s_churn=10.0),
    "ancestral": ancestral,
    "ddim": partial(samplers.ddim, eta=0.5),
    "euler_ancestral": samplers.euler_ancestral,
}


def all_samplers() -> list:
    """Each with its name; the stochastic ones with noise for two images of 4x4."""
    noisy = {name: partial(sampler, noise=noise_source(2, 1, 4, 4)) for name, sampler in STOCHASTIC.items()}
    return [pytest.param(sampler, id=name) for name, sampler in (DETERMINISTIC | noisy).items()]


# Orders of convergence. Errors are measured at every sigma except 0, to which each method steps in its own way.


def even_sigmas(steps: int) -> Tensor:
    """From far out down to the standard deviation of the data in equal steps, then 0."""
    return torch.cat([torch.linspace(10, 0.5, steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])


def karras_sigmas(steps: int) -> Tensor:
    return noise.karras_sigmas(steps, sigma_min=1e-4, sigma_max=80)


def log_snr_sigmas(steps: int) -> Tensor:
    return noise.log_snr_sigmas(steps, sigma_min=1e-4, sigma_max=80)


def fitted_order(sampler: Sampler, spacing: Callable[[int], Tensor]) -> float:
    """The order of convergence: minus the slope of ln(greatest error) over ln(number of steps)."""
    step_counts, errors = [150, 200, 300], []
    for steps in step_counts:
        sigmas = spacing(steps)
        start = sigmas[0] * normal(1, 1, 4, 4)
        reached = list(sampler(GAUSSIAN, start, sigmas))[:-1]
        path = [on_the_path(start, sigmas[0], step.sigma, MEAN, STD) for step in reached]
        errors.append(max(float((step.x - x).abs().max()) for step, x in zip(reached, path, strict=True)))
    return -float(np.polyfit(np.log(step_counts), np.log(errors), 1)[0])


@pytest.mark.parametrize("spacing", [even_sigmas, karras_sigmas, log_snr_sigmas])
@pytest.mark.parametrize(("sampler", "order"), [(samplers.euler, 1), (samplers.heun, 2), (samplers.dpmpp_2m, 2)])
def test_error_falls_with_the_order_of_the_sampler(
    sampler: Sampler, order: int, spacing: Callable[[int], Tensor]
) -> None:
    assert fitted_order(sampler, spacing) == pytest.approx(order, abs=0.1)


# Multistep methods start with lower orders: Euler's first step has an error of h^2 / 2 times the path's curvature, so
# that on a curved path the whole is of order 2. This path, a multiple of sqrt(STD^2 + sigma^2), has a curvature of
# STD^2 / sigma^3, almost none far out: there the full order shows.


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("sampler", [samplers.lms, samplers.ipndm])
def test_multistep_has_its_order_on_even_sigmas(sampler: Sampler, order: int) -> None:
    assert fitted_order(partial(sampler, order=order), even_sigmas) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("sampler", "order", "observed"), [("lms", 3, 3), ("ipndm", 2, 2), ("ipndm", 3, 2), ("ipndm", 4, 2)]
)
def test_orders_of_lms_and_ipndm_on_uneven_sigmas(sampler: str, order: int, observed: int) -> None:
    assert fitted_order(partial(DETERMINISTIC[sampler], order=order), karras_sigmas) == pytest.approx(
        observed, abs=0.15
    )


def jumping_sigmas(steps: int) -> Tensor:
    """Steps of alternating length in ln sigma, 1 and 2, then 0."""
    ends = torch.cat([torch.zeros(1), torch.tensor([1.0, 2.0]).repeat(steps // 2)]).double().cumsum(0)
    return torch.cat([80 * torch.exp(math.log(1e-4 / 80) * ends / ends[-1]), torch.zeros(1)])


@pytest.mark.parametrize(("sampler", "order", "observed"), [("lms", 2, 2), ("lms", 3, 3), ("ipndm", 2, 1)])
def test_jumping_steps_cost_ipndm_an_order_and_lms_none(sampler: str, order: int, observed: int) -> None:
    assert fitted_order(partial(DETERMINISTIC[sampler], order=order), jumping_sigmas) == pytest.approx(
        observed, abs=0.15
    )


# Exactness.


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", all_samplers())
def test_a_point_is_reached_exactly_in_any_number_of_steps(sampler: Sampler, steps: int) -> None:
    start = 80 * normal(2, 1, 4, 4)
    *_, end = sampler(lambda x, sigma, label: torch.full_like(x, 0.4), start, noise.karras_sigmas(steps, 0.002, 80))
    torch.testing.assert_close(end.x, torch.full_like(start, 0.4), rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_a_straight_path_is_followed_exactly(sampler: Sampler) -> None:
    start, sigmas = 80 * normal(2, 1, 4, 4), noise.karras_sigmas(7, 0.002, 80)
    for step in sampler(lambda x, sigma, label: torch.full_like(x, 0.4), start, sigmas):
        expected = 0.4 + step.sigma / sigmas[0] * (start - 0.4)
        torch.testing.assert_close(step.x, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", all_samplers())
def test_a_sampler_yields_every_sigma_and_predicted_x0(sampler: Sampler, steps: int) -> None:
    predicted = []

    def recording(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        predicted.append(curved(x, sigma, label))
        return predicted[-1]

    sigmas = noise.karras_sigmas(steps, 0.002, 80)
    steps_taken = list(
        sampler(recording, samplers.starting_noise(normal(2, 1, 4, 4), sigmas[0]), sigmas, torch.tensor([0, 3]))
    )
    assert [float(step.sigma) for step in steps_taken] == sigmas[1:].tolist()
    assert all(any(torch.equal(step.x0, x0) for x0 in predicted) for step in steps_taken)
    # Only lms takes the step to 0 along several slopes.
    if steps == 1 or sampler is not samplers.lms:
        torch.testing.assert_close(steps_taken[-1].x, steps_taken[-1].x0, rtol=0, atol=1e-12)


# The algorithms as their papers write them, on DDPM's x_t = x / sqrt(1 + sigma^2).


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_ddim_is_that_of_song_et_al(steps: int, eta: float) -> None:
    sigmas = discrete_sigmas(steps) if steps > 1 else torch.cat([SCHEDULE[-1:], torch.zeros(1)])
    t = torch.searchsorted(SCHEDULE, sigmas[:-1])
    x_T, label = normal(3, 1, 4, 4), torch.tensor([0, 1, 2])
    theirs = noise_source(3, 1, 4, 4)

    x_t = x_T
    start = samplers.starting_noise(x_T, sigmas[0])
    ours = samplers.ddim(curved, start, sigmas, label, noise=noise_source(3, 1, 4, 4), eta=eta)
    for i, step in enumerate(ours):
        a = ALPHA_BAR[t[i]]
        a_prev = ALPHA_BAR[t[i + 1]] if i + 1 < steps else torch.ones(())
        # Song et al. 2021, Eq. 12 and 16.
        x0 = curved(x_t / a.sqrt(), sigmas[i].expand(3), label)
        eps = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
        deviation = eta * ((1 - a_prev) / (1 - a)).sqrt() * (1 - a / a_prev).sqrt()
        x_t = a_prev.sqrt() * x0 + (1 - a_prev - deviation**2).sqrt() * eps
        if eta > 0 and i + 1 < steps:
            x_t = x_t + deviation * theirs()
        torch.testing.assert_close(step.x0, x0, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(step.x * a_prev.sqrt(), x_t, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variance", [reverse.small, reverse.large])
def test_ancestral_is_ddpms_posterior_step_by_step(variance: reverse.LogVariance) -> None:
    # Ho et al. 2020, Eq. 6 and 7 and Algorithm 2, with t from 999 to 0.
    alpha, alpha_bar_prev = 1 - BETAS, torch.cat([torch.ones(1), ALPHA_BAR[:-1]])
    beta_tilde = (1 - alpha_bar_prev) / (1 - ALPHA_BAR) * BETAS
    sigma_squared = beta_tilde if variance is reverse.small else BETAS
    x_T, label = normal(3, 1, 4, 4), torch.tensor([0, 1, 2])
    theirs = noise_source(3, 1, 4, 4)

    x_t = x_T
    sigmas = discrete_sigmas(1000)
    start = samplers.starting_noise(x_T, sigmas[0])
    ours = ancestral(curved, start, sigmas, label, noise=noise_source(3, 1, 4, 4), variance=variance)
    for t, step in zip(reversed(range(1000)), ours, strict=True):
        x0 = curved(x_t / ALPHA_BAR[t].sqrt(), SCHEDULE[t].expand(3), label)
        mean = (
            alpha_bar_prev[t].sqrt() * BETAS[t] / (1 - ALPHA_BAR[t]) * x0
            + alpha[t].sqrt() * (1 - alpha_bar_prev[t]) / (1 - ALPHA_BAR[t]) * x_t
        )
        x_t = mean + (sigma_squared[t].sqrt() * theirs() if t > 0 else 0.0)
        torch.testing.assert_close(step.x * alpha_bar_prev[t].sqrt(), x_t, rtol=1e-9, atol=1e-9)


def test_stochastic_heun_is_algorithm_2_of_karras_et_al() -> None:
    sigmas, label = noise.karras_sigmas(12, 0.002, 80), torch.tensor([0, 1])
    S_churn, S_tmin, S_tmax, S_noise, N = 4.0, 0.05, 50.0, 1.1, 12
    theirs = noise_source(2, 1, 4, 4)
    start = 80 * normal(2, 1, 4, 4)
    options = {"s_churn": S_churn, "s_tmin": S_tmin, "s_tmax": S_tmax, "s_noise": S_noise}
    ours = samplers.heun(curved, start, sigmas, label, noise=noise_source(2, 1, 4, 4), **options)
    x = start
    for i, step in enumerate(ours):
        t, t_next = sigmas[i], sigmas[i + 1]
        gamma = min(S_churn / N, math.sqrt(2) - 1) if S_tmin <= t <= S_tmax else 0.0
        eps = S_noise * theirs()
        t_hat = t + gamma * t
        x_hat = x + (t_hat**2 - t**2).sqrt() * eps
        d = (x_hat - curved(x_hat, t_hat.expand(2), label)) / t_hat
        x = x_hat + (t_next - t_hat) * d
        if t_next != 0:
            d_next = (x - curved(x, t_next.expand(2), label)) / t_next
            x = x_hat + (t_next - t_hat) * (d / 2 + d_next / 2)
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


def test_dpmpp_2m_is_algorithm_2_of_lu_et_al() -> None:
    # Lu et al. 2022b, on x_t with signal alpha and noise sigma, over steps of different lengths.
    levels = discrete_sigmas(9)
    x_T, label = normal(2, 1, 4, 4), torch.tensor([0, 1])
    alpha = 1 / torch.sqrt(1 + levels**2)
    sigma = torch.sqrt(1 - alpha**2)
    lambda_ = torch.log(alpha / sigma)
    h = lambda_.diff()

    def x_theta(x: Tensor, i: int) -> Tensor:
        return curved(x / alpha[i], levels[i].expand(2), label)

    x, predicted = x_T, []
    ours = samplers.dpmpp_2m(curved, samplers.starting_noise(x_T, levels[0]), levels, label)
    for i, step in zip(range(1, 9), ours, strict=False):  # The ninth step goes to 0, where lambda is infinite.
        predicted.append(x_theta(x, i - 1))
        D = predicted[-1]
        if i > 1:
            r = h[i - 2] / h[i - 1]
            D = (1 + 1 / (2 * r)) * predicted[-1] - 1 / (2 * r) * predicted[-2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * (torch.exp(-h[i - 1]) - 1) * D
        torch.testing.assert_close(step.x * alpha[i], x, rtol=1e-9, atol=1e-9)


def test_s_churn_raises_sigma_by_at_most_sqrt_2() -> None:
    levels = []

    def watching(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        levels.append(float(sigma[0]))
        return curved(x, sigma, label)

    sigmas = torch.tensor([8.0, 0.0], dtype=torch.float64)
    list(samplers.heun(watching, normal(2, 1, 4, 4), sigmas, noise=noise_source(2, 1, 4, 4), s_churn=1000.0))
    assert levels == [pytest.approx(8 * math.sqrt(2), rel=1e-12)]


# Samplers that are special cases of one another.


def path_of(steps: Iterator[Step]) -> Tensor:
    return torch.stack([step.x for step in steps])


@pytest.mark.parametrize("steps", [2, 7, 100])
def test_ddim_is_euler_at_eta_0_and_ancestral_at_eta_1(steps: int) -> None:
    sigmas, label = discrete_sigmas(steps), torch.tensor([0, 1, 2])
    start = samplers.starting_noise(normal(3, 1, 4, 4), sigmas[0])
    without = samplers.ddim(curved, start, sigmas, label, noise=lambda: pytest.fail("noise was taken"), eta=0.0)
    torch.testing.assert_close(
        path_of(without), path_of(samplers.euler(curved, start, sigmas, label)), rtol=1e-9, atol=1e-9
    )
    full = samplers.ddim(curved, start, sigmas, label, noise=noise_source(3, 1, 4, 4), eta=1.0)
    ddpm = ancestral(curved, start, sigmas, label, noise=noise_source(3, 1, 4, 4), variance=reverse.small)
    torch.testing.assert_close(path_of(full), path_of(ddpm), rtol=1e-9, atol=1e-9)


def test_heun_without_churn_takes_no_noise() -> None:
    sigmas, start = noise.karras_sigmas(7, 0.002, 80), 80 * normal(2, 1, 4, 4)
    without = samplers.heun(curved, start, sigmas, noise=lambda: pytest.fail("noise was taken"), s_churn=0.0)
    assert torch.equal(path_of(without), path_of(samplers.heun(curved, start, sigmas)))


@pytest.mark.parametrize("sampler", [samplers.lms, samplers.ipndm])
def test_multistep_of_order_1_is_euler(sampler: Sampler) -> None:
    sigmas, start = noise.karras_sigmas(7, 0.002, 80), 80 * normal(2, 1, 4, 4)
    first_order = sampler(curved, start, sigmas, order=1)
    torch.testing.assert_close(path_of(first_order), path_of(samplers.euler(curved, start, sigmas)))


@pytest.mark.parametrize(("fraction", "variance"), [(0.0, reverse.small), (1.0, reverse.large)])
def test_a_learned_variance_at_its_bounds_is_the_fixed_one(fraction: float, variance: reverse.LogVariance) -> None:
    sigmas, start = discrete_sigmas(20), samplers.starting_noise(normal(2, 1, 4, 4), SCHEDULE[-1])

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        return Prediction(curved(x, sigma, label), torch.full_like(x, fraction))

    learned = samplers.ancestral(predict, start, sigmas, noise=noise_source(2, 1, 4, 4), variance=reverse.learned)
    fixed = samplers.ancestral(predict, start, sigmas, noise=noise_source(2, 1, 4, 4), variance=variance)
    torch.testing.assert_close(path_of(learned), path_of(fixed), rtol=1e-9, atol=1e-9)


# Moments. For Gaussian data every sampler is linear in the noise: impulses give them without sampling error.


def moments(sampler: Sampler, denoise: Denoise, sigmas: Tensor) -> tuple[float, float]:
    impulses = Impulses(len(sigmas))
    *_, end = sampler(denoise, samplers.starting_noise(impulses(), sigmas[0]), sigmas, noise=impulses)
    return Impulses.moments(end.x)


def learned(fraction: float) -> Sampler:
    def sampler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: samplers.Noise) -> Iterator[Step]:
        def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
            return Prediction(denoise(x, sigma, label), torch.full_like(x, fraction))

        return samplers.ancestral(predict, x, sigmas, noise=noise, variance=reverse.learned)

    return sampler


UNBIASED: dict[str, Sampler] = {
    "small": partial(ancestral, variance=reverse.small),
    "large": partial(ancestral, variance=reverse.large),
    "learned 0": learned(0.0),
    "learned 0.5": learned(0.5),
    "learned 1": learned(1.0),
    "ddim 0.5": partial(samplers.ddim, eta=0.5),
}


@pytest.mark.parametrize("sampler", UNBIASED.values(), ids=UNBIASED)
def test_a_thousand_steps_reproduce_the_moments_of_the_data(sampler: Sampler) -> None:
    mean, variance = moments(sampler, GAUSSIAN, discrete_sigmas(1000))
    assert mean == pytest.approx(MEAN, rel=0.02)
    assert variance == pytest.approx(STD**2, rel=0.02)


@pytest.mark.parametrize("s_churn", [10.0, 40.0])
def test_churn_keeps_the_variance_of_the_data(s_churn: float) -> None:
    errors = []
    for steps in (200, 400):
        sampler = partial(samplers.heun, s_churn=s_churn, s_tmin=0.0, s_tmax=math.inf, s_noise=1.0)
        mean, variance = moments(sampler, GAUSSIAN, noise.karras_sigmas(steps, 0.002, 80))
        assert mean == pytest.approx(MEAN, rel=0.02)
        errors.append(abs(variance / STD**2 - 1))
    assert max(errors) < 0.02
    # The rest is Heun's error, of second order: a quarter of it at half the step.
    assert errors[1] < errors[0] / 3


def test_starting_noise_is_ddpms_unit_normal_x_T() -> None:
    x_T = normal(2, 1, 4, 4).float()
    for sigma in (SCHEDULE[-1], torch.tensor(2e4, dtype=torch.float64)):
        start = samplers.starting_noise(x_T, sigma)
        assert start.dtype == torch.float64
        alpha_bar = 1 / (1 + sigma**2)
        torch.testing.assert_close(start * alpha_bar.sqrt(), x_T.double(), rtol=1e-12, atol=0)


def test_ancestral_takes_noise_for_every_step_but_the_last() -> None:
    taken = []

    def take() -> Tensor:
        taken.append(normal(2, 1, 4, 4, seed=len(taken)))
        return taken[-1]

    list(ancestral(curved, normal(2, 1, 4, 4), discrete_sigmas(7), noise=take))
    assert len(taken) == 6


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 399])
def test_ddim_stays_finite_in_float32_on_a_cosine_schedule(steps: int) -> None:
    config = DiffusionConfig(sigma_sampler="discrete_uniform", schedule="cosine", num_timesteps=4000)
    sigmas = config.discrete_sigmas(steps).float()
    x = torch.full((1, 1, 2, 2), float(sigmas[0]))
    zero: Denoise = lambda x, sigma, label=None: 0 * x  # noqa: E731
    *_, end = samplers.euler_ancestral(zero, x, sigmas, noise=lambda: torch.ones_like(x))
    assert bool(torch.isfinite(end.x).all())


def test_euler_ancestral_is_ddim_with_eta_1() -> None:
    sigmas, start = noise.karras_sigmas(7, 0.002, 80), 80 * normal(2, 1, 4, 4)
    ours = samplers.euler_ancestral(curved, start, sigmas, noise=noise_source(2, 1, 4, 4))
    ddim = samplers.ddim(curved, start, sigmas, noise=noise_source(2, 1, 4, 4), eta=1.0)
    assert torch.equal(path_of(ours), path_of(ddim))


@pytest.mark.parametrize(("sampler", "options"), [(samplers.heun, {"s_churn": 1.0}), (samplers.ddim, {"eta": 0.1})])
def test_a_sampler_that_needs_noise_asks_for_it(sampler: Sampler, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"pass noise=lambda: torch\.randn_like\(x\)"):
        list(sampler(curved, normal(2, 1, 4, 4), noise.karras_sigmas(3, 0.002, 80), **options))
