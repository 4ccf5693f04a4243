"""The likelihood of the probability flow against the exact density of Gaussian pixels, and its protocol.

For these the flow is linear: what N(0, 1 + sigma_max^2), where sampling starts, becomes at sigma_min is known exactly.
"""

import json
import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from helpers.gaussians import gaussian, on_the_path
from helpers.tensors import normal
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from undiffuse.diffusion.flow_likelihood import (
    RK4,
    RK45,
    FlowLikelihood,
    Solver,
    dequantized,
    flow_likelihood,
    log_density,
)
from undiffuse.diffusion.likelihood import HALF_BIN

SIGMA_MIN, SIGMA_MAX = 0.01, 80.0
LOW, HIGH = torch.tensor([SIGMA_MIN, SIGMA_MAX], dtype=torch.float64)

MEAN = 0.3 * normal(1, 1, 2, 3, seed=5)
STD = torch.tensor([0.2, 0.3, 0.5, 0.7, 0.9, 1.1], dtype=torch.float64).view(1, 1, 2, 3)
IMAGES = MEAN + STD * normal(4, 1, 2, 3)


def signs(*shape: int, seed: int = 9) -> Tensor:
    return normal(*shape, seed=seed).sign()


def exact_density(x: Tensor) -> Tensor:
    """ln p of the model at SIGMA_MIN: that of the prior at the end of the flow, plus the log of its stretch."""
    end = on_the_path(x, LOW, HIGH, MEAN, STD)
    stretch = torch.log((STD**2 + HIGH**2) / (STD**2 + LOW**2)) / 2
    prior = Normal(torch.zeros_like(HIGH), torch.sqrt(1 + HIGH**2))
    return (prior.log_prob(end) + stretch).sum(dim=(1, 2, 3))


def density(x: Tensor, solve: Solver, seed: int = 9) -> Tensor:
    return log_density(
        gaussian(MEAN, STD), x, SIGMA_MIN, SIGMA_MAX, probe=signs(len(x), 1, 2, 3, seed=seed), solve=solve
    )


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9])
def test_the_density_of_independent_pixels_is_exact(tolerance: float) -> None:
    # The Jacobian is diagonal: any probe of signs gives its trace.
    for seed in (9, 10):
        ours = density(IMAGES, RK45(tolerance), seed)
        torch.testing.assert_close(ours, exact_density(IMAGES), rtol=0, atol=100 * tolerance)


def test_the_error_of_rk4_is_of_fourth_order() -> None:
    step_counts = [32, 48, 64, 96, 128]
    errors = [float((density(IMAGES, RK4(steps)) - exact_density(IMAGES)).abs().max()) for steps in step_counts]
    slope = np.polyfit(np.log(step_counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-4, abs=0.2)


def test_the_density_is_the_datas_up_to_noise_at_both_ends() -> None:
    own = Normal(MEAN, torch.sqrt(STD**2 + LOW**2)).log_prob(IMAGES).sum(dim=(1, 2, 3))
    # The prior's variance is 1 + sigma_max^2 and the data's STD^2 + sigma_max^2, and their means differ by MEAN. At a
    # point z standard deviations out, that changes ln p by at most the following.
    z = (IMAGES - MEAN) / STD
    variance = (1 - STD**2).abs() / SIGMA_MAX**2 * (1 + z**2) / 2
    shift = (MEAN * z).abs() / SIGMA_MAX + (MEAN / SIGMA_MAX) ** 2 / 2
    error = (density(IMAGES, RK45(1e-9)) - own).abs()
    assert (error <= 1.01 * (variance + shift).sum(dim=(1, 2, 3)) + 1e-6).all()
    assert error.max() > 1e-6


def test_the_mean_over_all_probes_is_the_exact_density() -> None:
    # Four pixels with a covariance C: D = m + C (C + sigma^2 I)^-1 (x - m).
    A = normal(4, 4, seed=3) / 2
    C, m = A @ A.mT + 0.05 * torch.eye(4), 0.3 * normal(4, seed=4)
    eigenvalues, U = torch.linalg.eigh(C)

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        shrink = eigenvalues / (eigenvalues + sigma[0] ** 2)
        return (m + (x.flatten(1) - m) @ U @ torch.diag(shrink) @ U.mT).view_as(x)

    probes = torch.tensor(list(product([-1.0, 1.0], repeat=4)), dtype=torch.float64).view(16, 1, 2, 2)
    x = (m + A @ normal(4, seed=6)).view(1, 1, 2, 2)
    ours = log_density(denoise, x.expand(16, -1, -1, -1), SIGMA_MIN, SIGMA_MAX, probe=probes, solve=RK45(1e-9))
    ratio = torch.sqrt((eigenvalues + HIGH**2) / (eigenvalues + LOW**2))
    end = m + (x.flatten() - m) @ U @ torch.diag(ratio) @ U.mT
    prior = MultivariateNormal(torch.zeros(4).double(), (1 + HIGH**2) * torch.eye(4).double())
    exact = prior.log_prob(end) + ratio.log().sum()
    # The sixteen probes are equally likely: their mean is the expectation of the estimator.
    torch.testing.assert_close(ours.mean(), exact, rtol=0, atol=1e-6)
    assert ours.std() > 0.1, "a single probe would be far off"
    # And unbiased for normal probes too, within five standard errors.
    many = 4000
    normals = normal(many, 1, 2, 2, seed=7)
    estimates = log_density(denoise, x.expand(many, -1, -1, -1), SIGMA_MIN, SIGMA_MAX, probe=normals, solve=RK4(64))
    assert float(estimates.mean()) == pytest.approx(float(exact), abs=5 * float(estimates.std()) / math.sqrt(many))


def test_the_label_reaches_the_denoiser() -> None:
    labels, seen = torch.tensor([2, 0, 1, -1]), []

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        seen.append(label)
        return gaussian(MEAN, STD)(x, sigma, label)

    log_density(denoise, IMAGES, SIGMA_MIN, SIGMA_MAX, labels, probe=signs(4, 1, 2, 3), solve=RK4(1))
    assert len(seen) == 4
    assert all(label is labels for label in seen)


# Bits of pixels.


def likelihood_of(
    x0: Tensor, uniform: Tensor, solve: Solver, watch: Callable = lambda fraction: None
) -> FlowLikelihood:
    probe = signs(*x0.shape)
    return flow_likelihood(
        gaussian(MEAN, STD), x0, SIGMA_MIN, SIGMA_MAX, uniform=uniform, probe=probe, solve=solve, watch=watch
    )


PIXELS = (255 * (IMAGES.clamp(-1, 1) + 1) / 2).round() / 255 * 2 - 1
UNIFORM = torch.rand(4, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_dequantization_fills_the_bins_and_no_more() -> None:
    zero, almost_one = torch.zeros_like(PIXELS), torch.full_like(PIXELS, 1 - 2**-53)
    torch.testing.assert_close(dequantized(PIXELS, zero), PIXELS - 1 / 255)
    torch.testing.assert_close(dequantized(PIXELS, almost_one), PIXELS + 1 / 255)
    assert torch.equal(dequantized(PIXELS, zero + 0.5), PIXELS)
    back = (255 * (dequantized(PIXELS, UNIFORM) + 1) / 2).round() / 255 * 2 - 1
    torch.testing.assert_close(back, PIXELS)


def test_the_bits_are_those_of_the_mass_of_the_bins() -> None:
    ours = likelihood_of(PIXELS, UNIFORM, RK45(1e-9))
    nats = -exact_density(PIXELS + (2 * UNIFORM - 1) / 255)
    torch.testing.assert_close(ours.bits, nats / (6 * math.log(2)) + math.log2(255 / 2), rtol=0, atol=1e-6)


def test_the_mean_over_dequantized_pixels_is_the_entropy() -> None:
    pixels, mean, std = 4096, 0.1, 0.15
    x0 = mean + std * normal(pixels, 1, 1, 1)
    on_bins = (255 * (x0 + 1) / 2).round() / 255 * 2 - 1
    uniform = torch.rand(pixels, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = flow_likelihood(
        gaussian(mean, std), on_bins, 1e-3, SIGMA_MAX, uniform=uniform, probe=signs(pixels, 1, 1, 1), solve=RK4(128)
    )
    entropy = float(Normal(mean, std).entropy()) / math.log(2) - math.log2(2 * HALF_BIN)
    # The bins themselves cost at most (width / std)^2 / 12 = 2e-4.
    error = float(ours.bits.std()) / math.sqrt(pixels)
    assert float(ours.bits.mean()) == pytest.approx(entropy, abs=5 * error + 2e-4)


@pytest.mark.parametrize(("solve", "name"), [(RK4(8), "RK4(steps=8)"), (RK45(1e-3), "RK45(tolerance=0.001)")])
def test_the_protocol_states_solver_sigmas_and_nfe(solve: Solver, name: str) -> None:
    calls = []
    done = likelihood_of(PIXELS, UNIFORM, solve, calls.append)
    summary = json.loads(json.dumps(done.summary()))
    assert summary["protocol"]["solver"] == name
    assert summary["protocol"]["nfe"] == len(calls)
    assert (summary["protocol"]["sigma_min"], summary["protocol"]["sigma_max"]) == (SIGMA_MIN, SIGMA_MAX)
    # From one end to the other; Runge-Kutta methods may look back within a step, but never beyond it.
    assert calls[0] == pytest.approx(0, abs=1e-9)
    assert calls[-1] == pytest.approx(1, abs=1e-9)
    assert min(calls) > -1e-9
    assert max(calls) < 1 + 1e-9


def test_rk4_has_nfe_4_per_step() -> None:
    assert likelihood_of(PIXELS, UNIFORM, RK4(8)).protocol.nfe == 32


def test_the_summary_is_the_mean_over_images_and_its_error() -> None:
    done = likelihood_of(PIXELS, UNIFORM, RK4(8))
    summary = done.summary()
    assert summary["bits_per_dim"] == pytest.approx(float(done.bits.sum()) / 4)
    assert summary["standard_error"] == pytest.approx(float(done.bits.std()) / 2)
    assert summary["images"] == 4
    assert likelihood_of(PIXELS[:1], UNIFORM[:1], RK4(1)).summary()["standard_error"] is None


def test_no_gradients_are_kept_nor_grad_mode_changed() -> None:
    with torch.no_grad():
        done = likelihood_of(PIXELS, UNIFORM, RK4(2))
        assert not torch.is_grad_enabled()
    assert not done.bits.requires_grad
    assert torch.equal(done.bits, likelihood_of(PIXELS, UNIFORM, RK4(2)).bits)


def test_a_failing_solver_is_an_error() -> None:
    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        return x * torch.nan if sigma[0] > 1 else gaussian(MEAN, STD)(x, sigma, label)

    with pytest.raises(ArithmeticError, match="could not be followed"):
        log_density(denoise, IMAGES, SIGMA_MIN, SIGMA_MAX, probe=signs(4, 1, 2, 3), solve=RK45())
