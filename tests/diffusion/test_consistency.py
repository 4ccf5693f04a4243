"""Consistency tuning: its pairs of noise levels, its loss, and the sampler of what it makes."""

import math
from itertools import pairwise
from statistics import NormalDist

import pytest
import torch
from helpers.gaussians import Impulses, gaussian, noise_source, on_the_path
from helpers.tensors import normal
from torch import Tensor, nn

from undiffuse.diffusion import samplers
from undiffuse.diffusion.consistency import HUBER_SCALE, consistency_loss, lower_sigma, sampling_sigmas, stage_at
from undiffuse.diffusion.denoiser import Denoise, denoiser, predictor
from undiffuse.diffusion.parametrization import Coefficients, edm, flow
from undiffuse.diffusion.recipe import DiffusionConfig

MEAN, STD = 0.3, 0.6


def zero(sigma: Tensor) -> Tensor:
    return torch.zeros_like(sigma)


def as_given(sigma: Tensor) -> Coefficients:
    """D is the network itself, which is told sigma."""
    one = torch.ones_like(sigma)
    return Coefficients(c_skip=torch.zeros_like(sigma), c_out=one, c_in=one, c_noise=sigma)


def huber(difference: Tensor) -> Tensor:
    c = HUBER_SCALE * math.sqrt(difference[0].numel())
    return torch.sqrt(difference.square().sum(dim=(1, 2, 3)) + c**2) - c


def test_the_lower_level_is_the_released_code_s() -> None:
    """Recorded from its formula, `t - t / q^(s + 1) * (1 + 8 * sigmoid(-t))`, at 0 where that is negative."""
    t = torch.tensor([0.01, 0.5, 2.0, 10.0, 80.0], dtype=torch.float64)
    recorded = {
        (2.0, 0): [0.0, 0.0, 0.04637662, 4.99818408, 40.0],
        (2.0, 3): [0.00688750, 0.37436493, 1.75579708, 9.37477301, 75.0],
        (256.0, 0): [0.00980547, 0.49214781, 1.98473732, 9.96092331, 79.6875],
    }
    for (q, stage), r in recorded.items():
        torch.testing.assert_close(lower_sigma(t, q, stage), torch.tensor(r).double(), rtol=1e-5, atol=1e-6)


def test_pairs_are_closer_in_later_stages_and_never_upside_down() -> None:
    t = torch.logspace(-6, 4, 200, dtype=torch.float64)
    stages = [lower_sigma(t, 2.0, stage) for stage in range(8)]
    for r, later in pairwise(stages):
        assert bool((r <= later).all())
    for r in stages:
        assert bool(((r >= 0) & (r < t)).all())


def test_the_standard_deviation_of_the_images_is_a_unit_of_noise() -> None:
    t = torch.logspace(-3, 2, 20, dtype=torch.float64)
    torch.testing.assert_close(lower_sigma(2 * t, 2.0, 2, sigma_data=1.0), 2 * lower_sigma(t, 2.0, 2))


def test_stages_are_equally_long_and_rise_with_the_budget() -> None:
    seen = [stage_at(i / 800, 8) for i in range(1000)]
    assert [seen.count(stage) for stage in range(7)] == 7 * [100]
    assert seen == sorted(seen)
    assert max(seen) == 7
    diffusion = DiffusionConfig(objective="consistency", consistency_stages=3)
    assert [diffusion.stage(progress) for progress in (0.0, 0.34, 0.67, 1.0)] == [0, 1, 2, 2]
    assert DiffusionConfig().stage(0.9) == 0


def test_with_the_clean_image_as_target_it_is_a_denoiser_s_pseudo_huber_loss() -> None:
    x0, eps = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    sigma = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)

    def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        return torch.tanh(x) * c_noise.view(-1, 1, 1, 1)

    found = consistency_loss(network, edm(0.5), zero, x0=x0, eps=eps, sigma=sigma)
    x = x0 + sigma.view(-1, 1, 1, 1) * eps
    D = denoiser(predictor(network, edm(0.5), torch.float64))(x, sigma, None)
    torch.testing.assert_close(found, huber(D - x0) / sigma)


@pytest.mark.parametrize("parametrization", [edm(0.5), flow], ids=["edm", "flow"])
def test_it_is_the_difference_of_two_points_of_a_path(parametrization) -> None:
    x0, eps = normal(3, 1, 4, 4), normal(3, 1, 4, 4, seed=1)
    t = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)

    def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        return torch.tanh(x) * c_noise.view(-1, 1, 1, 1)

    found = consistency_loss(network, parametrization, lambda t: t / 2, x0=x0, eps=eps, sigma=t)
    D = denoiser(predictor(network, parametrization, torch.float64))
    D_t, D_r = (D(x0 + level.view(-1, 1, 1, 1) * eps, level, None) for level in (t, t / 2))
    torch.testing.assert_close(found, huber(D_t - D_r) / (t / 2))


def test_both_of_a_pair_have_the_same_noise_and_the_same_dropout() -> None:
    """A denoiser that returns eps through dropout: the two differ by nothing, and the next pair is another."""
    masks: list[Tensor] = []
    dropout = nn.Dropout(0.5)
    x0, eps = torch.zeros(2, 1, 8, 8), normal(2, 1, 8, 8).float() + 5
    before = torch.manual_seed(3).get_state()

    def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        dropped = dropout(x / c_noise.view(-1, 1, 1, 1))
        masks.append(dropped.detach() != 0)
        return dropped

    sigma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    loss = consistency_loss(network, as_given, lambda t: t / 2, x0=x0, eps=eps, sigma=sigma)
    again = consistency_loss(network, as_given, lambda t: t / 2, x0=x0, eps=eps, sigma=sigma)
    torch.testing.assert_close(torch.cat([loss, again]), torch.zeros(4, dtype=torch.float64), atol=1e-4, rtol=0)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(torch.get_rng_state(), before)


def test_the_gradient_flows_through_the_noisier_image_alone() -> None:
    x0, eps = normal(2, 1, 4, 4), normal(2, 1, 4, 4, seed=1)
    t = torch.tensor([0.7, 3.0], dtype=torch.float64)
    weight = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        return weight * x

    consistency_loss(network, as_given, lambda t: t / 2, x0=x0, eps=eps, sigma=t).sum().backward()
    (found,) = torch.autograd.grad(
        (huber(weight * (x0 + t.view(-1, 1, 1, 1) * eps) - 0.4 * (x0 + t.view(-1, 1, 1, 1) / 2 * eps)) / (t / 2)).sum(),
        weight,
    )
    torch.testing.assert_close(weight.grad, found)


def test_where_a_pair_agrees_the_gradient_is_finite() -> None:
    x0 = torch.zeros(1, 1, 2, 2)
    weight = torch.tensor(1.0, requires_grad=True)
    consistency_loss(
        lambda x, c_noise, label: 0 * weight * x, as_given, lambda t: t / 2, x0=x0, eps=x0, sigma=torch.ones(1)
    ).sum().backward()
    assert weight.grad == 0


def exact(mean: float, std: float, sigma_min: float = 1e-6) -> Denoise:
    """The consistency function of Gaussian pixels: to the end of the probability flow through x."""
    end = torch.tensor(sigma_min, dtype=torch.float64)
    return lambda x, sigma, label=None: on_the_path(x, sigma.view(-1, 1, 1, 1), end, mean, std)


def test_the_exact_consistency_function_has_the_least_loss_on_gaussian_data() -> None:
    """Pairs lie on straight lines, not on the flow: their loss does not vanish, but its expected gradient does."""
    n = 20_000
    x0, eps = MEAN + STD * normal(n, 1, 1, 1), normal(n, 1, 1, 1, seed=1)
    t = torch.full((n,), 1.0, dtype=torch.float64)

    def loss(scale: float) -> float:
        def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
            at_t = (c_noise == 1).view(-1, 1, 1, 1)
            D = exact(MEAN, STD)(x, c_noise, None)
            return torch.where(at_t, MEAN + scale * (D - MEAN), D)

        return float(consistency_loss(network, as_given, lambda t: 0.999 * t, x0=x0, eps=eps, sigma=t).mean())

    assert loss(1.0) < min(loss(0.9995), loss(1.0005))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_with_the_exact_consistency_function_every_number_of_steps_has_the_moments_of_the_data(steps: int) -> None:
    sigmas = sampling_sigmas(steps, 80.0)
    impulses = Impulses(steps)
    start = samplers.starting_noise(impulses(), sigmas[0])
    start = torch.where(start == 0, 0.0, torch.sqrt(STD**2 + sigmas[0] ** 2)) + torch.tensor(MEAN)
    *_, end = samplers.consistency(exact(MEAN, STD), start, sigmas, noise=impulses)
    mean, variance = Impulses.moments(end.x)
    assert mean == pytest.approx(MEAN, rel=1e-6)
    assert variance == pytest.approx(STD**2, rel=1e-6)


def test_the_sampler_is_algorithm_1_of_song_et_al() -> None:
    sigmas = torch.tensor([80.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    denoise, x = gaussian(MEAN, STD), 80 * normal(2, 1, 3, 3)
    noise, same = noise_source(2, 1, 3, 3), noise_source(2, 1, 3, 3)
    steps = list(samplers.consistency(denoise, x, sigmas, noise=noise))
    expected = denoise(x, torch.full((2,), 80.0).double(), None)
    for step, s in zip(steps[:2], sigmas[1:3], strict=True):
        torch.testing.assert_close(step.x0, expected)
        noisy = expected + s * same()
        torch.testing.assert_close(step.x, noisy)
        expected = denoise(noisy, s.expand(2), None)
    assert torch.equal(steps[2].x, steps[2].x0)
    torch.testing.assert_close(steps[2].x, expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 16, 1000])
def test_its_noise_levels_fall_from_the_highest_through_the_published_one(steps: int) -> None:
    sigmas = sampling_sigmas(steps, 80.0)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 80
    assert sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())
    if steps % 2 == 0:
        assert float(sigmas[steps // 2]) == pytest.approx(0.821)


def test_between_they_are_quantiles_of_a_log_normal_distribution_below_the_highest() -> None:
    log_normal = NormalDist(math.log(0.821), 1.2)
    quartiles = [math.exp(log_normal.inv_cdf(p)) for p in (0.75, 0.5, 0.25)]
    assert sampling_sigmas(4, 80.0).tolist() == pytest.approx([80, *quartiles, 0])
    narrow = sampling_sigmas(1000, 2.0)  # As it is, the distribution would go beyond 2.
    assert bool((narrow.diff() < 0).all())
    assert float(narrow[1] / 0.821) == pytest.approx((2 / 0.821) ** 0.9)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="0 sampling steps are too few"):
        sampling_sigmas(0, 80.0)
