"""The variational bound: each term against torch's own divergences, and the whole against its exact gap."""

import json
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import mpmath
import pytest
import torch
from helpers.gaussians import drawing, gaussian
from helpers.tensors import normal
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from undiffuse.diffusion import likelihood, noise, reverse
from undiffuse.diffusion.denoiser import Estimate, Estimator, without_variance
from undiffuse.diffusion.likelihood import HALF_BIN, VLB, LogMass, Term

CHAIN = noise.sigmas_of_betas(noise.linear_betas(1000))
PIXELS = torch.linspace(-1, 1, 256, dtype=torch.float64)
VARIANCES = {"small": reverse.small, "large": reverse.large, "learned": reverse.learned}
MEAN, STD = 0.1, 0.15  # Wide against a pixel's bin, and so far inside [-1, 1] that all mass is there.


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bits_of(nats: Tensor) -> Tensor:
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


# Term by term.


@pytest.mark.parametrize("sigma", [0.3, 12.0, 157.0, 2e4])
def test_the_prior_is_the_divergence_of_what_is_left_at_the_noisiest_level(sigma: float) -> None:
    x0 = normal(3, 1, 4, 4).clamp(-1, 1)
    q, p = Normal(x0, sigma), Normal(torch.zeros_like(x0), math.sqrt(1 + sigma**2))
    torch.testing.assert_close(
        likelihood.prior_bits(x0, f64(sigma)[0]), bits_of(kl_divergence(q, p)), rtol=1e-6, atol=1e-15
    )


@pytest.mark.parametrize("name", ["small", "large", "learned"])
def test_a_step_costs_the_divergence_of_the_true_posterior_from_the_models(name: str) -> None:
    sigma, s = CHAIN[[1, 200, 999, 999]], CHAIN[[0, 100, 998, 0]]
    x0, x0_estimate = normal(4, 1, 4, 4).clamp(-1, 1), normal(4, 1, 4, 4, seed=1)
    fraction = torch.rand(4, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = likelihood.term_bits(Estimate(x0_estimate, fraction), x0, sigma, s, VARIANCES[name], last=-9.0)

    sigma, s = sigma.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
    x = x0 + sigma * normal(4, 1, 4, 4, seed=3)
    low, high = reverse.small_variance(sigma, s), reverse.large_variance(sigma, s)
    of_p = {"small": low, "large": high, "learned": low ** (1 - fraction) * high**fraction}
    q = Normal(reverse.posterior_mean(x, x0, sigma, s), low.sqrt())
    p = Normal(reverse.posterior_mean(x, x0_estimate, sigma, s), of_p[name].sqrt())
    torch.testing.assert_close(ours, bits_of(kl_divergence(q, p)), rtol=1e-9, atol=0)


def test_the_step_to_zero_costs_the_decoders_bits() -> None:
    sigma, s = CHAIN[[5, 5]], torch.cat([f64(0.0), CHAIN[4:5]])
    x0, x0_estimate = PIXELS[[120, 130]].view(2, 1, 1, 1), PIXELS[[121, 128]].view(2, 1, 1, 1)
    for log_mass in (likelihood.exact, likelihood.approximate):
        ours = likelihood.term_bits(Estimate(x0_estimate, None), x0, sigma, s, reverse.small, -8.0, log_mass)
        decoder = likelihood.decoder_bits(x0, x0_estimate, f64(-8.0), log_mass)
        assert ours[0] == decoder[0]
        assert ours[1] != decoder[1]


@pytest.mark.parametrize("log_mass", [likelihood.exact, likelihood.approximate])
@pytest.mark.parametrize("std", [0.002, 0.01, 0.1, 2.0])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.0017, 0.99, 5.0])
def test_the_decoders_256_probabilities_sum_to_one(mean: float, std: float, log_mass: LogMass) -> None:
    x0 = PIXELS.view(256, 1, 1, 1)
    bits = likelihood.decoder_bits(x0, torch.full_like(x0, mean), f64(2 * math.log(std)), log_mass)
    # The approximation takes none for less than 1e-12.
    assert float((2**-bits).sum()) == pytest.approx(1, abs=256e-12 + 1e-12)


def test_the_decoder_gives_a_pixel_its_bins_mass_and_the_outermost_all_beyond() -> None:
    mean, std = 0.3, 0.4
    p = Normal(f64(mean), f64(std))
    edges = torch.cat([f64(-math.inf), (PIXELS[1:] + PIXELS[:-1]) / 2, f64(math.inf)])
    x0 = PIXELS.view(256, 1, 1, 1)
    ours = likelihood.decoder_bits(x0, torch.full_like(x0, mean), f64(2 * math.log(std)))
    torch.testing.assert_close(2**-ours, p.cdf(edges[1:]) - p.cdf(edges[:-1]), rtol=1e-9, atol=0)
    assert edges[128] - edges[127] == pytest.approx(2 * HALF_BIN)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("distance", [0.0, 0.02, 0.05, -0.2, 1.5])
def test_the_decoder_is_exact_far_out_and_still_has_a_gradient(distance: float, dtype: torch.dtype) -> None:
    std = 0.005
    x0 = PIXELS[[130]].view(1, 1, 1, 1).to(dtype)
    mean = (x0 + distance).requires_grad_()
    bits = likelihood.decoder_bits(x0, mean, torch.tensor(2 * math.log(std), dtype=dtype))
    with mpmath.workdps(60):
        z = [
            (mpmath.mpf(float(x0)) + side * mpmath.mpf(HALF_BIN) - mpmath.mpf(float(mean.detach()))) / std
            for side in (-1, 1)
        ]
        z = sorted(-abs(end) for end in z) if z[0] * z[1] > 0 else z  # Of two tails alike, the one with digits left.
        expected = -float(mpmath.log(mpmath.ncdf(z[1]) - mpmath.ncdf(z[0]), 2))
    assert bits.item() == pytest.approx(expected, rel=1e-9 if dtype == torch.float64 else 1e-3)
    (gradient,) = torch.autograd.grad(bits.sum(), mean)
    assert float(gradient) * distance > 0 or abs(float(gradient)) < 1e-2 / std


def test_the_outermost_bins_have_a_gradient_too() -> None:
    x0 = PIXELS[[0, 255]].view(2, 1, 1, 1)
    mean = torch.zeros_like(x0).requires_grad_()
    (gradient,) = torch.autograd.grad(likelihood.decoder_bits(x0, mean, f64(-4.0)).sum(), mean)
    assert gradient[0] > 0 > gradient[1]


def test_with_the_approximation_a_pixel_that_is_ruled_out_costs_40_bits_and_no_more() -> None:
    x0 = PIXELS[[0, 128, 255]].view(3, 1, 1, 1)
    bits = likelihood.decoder_bits(x0, -x0.sign() * 0.9, f64(2 * math.log(0.001)), likelihood.approximate)
    torch.testing.assert_close(bits, torch.full_like(bits, -math.log2(1e-12)))


def test_improved_ddpms_approximation_is_the_normal_mass_to_4e_4() -> None:
    z = torch.linspace(-12, 12, 10_001, dtype=torch.float64)
    mass = likelihood.approximate(z, z + 0.7).exp()
    assert (mass - likelihood.exact(z, z + 0.7).exp()).abs().max() < 4e-4


# The whole. With the exact denoiser of Gaussian pixels everything is linear and normal: the chain x_0 ... x_T is one
# normal distribution q, the model's another, p, and what the bound exceeds the entropy by is KL(q || p).


def fixed(name: str, sigma: Tensor, s: Tensor) -> Tensor:
    """Ho et al.'s two choices, in words of their own: beta tilde and beta, with x_t on this axis."""
    beta, alpha_bar, alpha_bar_prev = 1 - (1 + s**2) / (1 + sigma**2), 1 / (1 + sigma**2), 1 / (1 + s**2)
    return {"small": (1 - alpha_bar_prev) / (1 - alpha_bar) * beta, "large": beta}[name] / alpha_bar_prev


def true_variance(sigma: Tensor, s: Tensor) -> Tensor:
    """Of x_s given x_sigma, for pixels that are N(MEAN, STD^2)."""
    return (STD**2 + s**2) * (sigma**2 - s**2) / (STD**2 + sigma**2)


def last_variance(sigmas: Tensor) -> Tensor:
    """What stands for 0 in the last step: the step before's small variance, in DDPM's scale."""
    return fixed("small", sigmas[-3], sigmas[-2]) / (1 + sigmas[-2] ** 2)


def exact_gap(sigmas: Tensor, variances: list[Tensor]) -> float:
    """KL(q || p) in bits of a model with these variances of its steps, from the noisiest level down."""
    levels = sigmas.flip(0)
    q = MultivariateNormal(torch.full_like(levels, MEAN), STD**2 + torch.minimum(levels[:, None], levels) ** 2)
    # x = A x + b + noise: each from the one above it; the top from the prior.
    A, b = torch.zeros(len(levels), len(levels)).double(), torch.zeros_like(levels)
    for i, (s, sigma) in enumerate(pairwise(levels)):
        shrink, kept = STD**2 / (STD**2 + sigma**2), (s / sigma) ** 2
        A[i, i + 1] = (1 - kept) * shrink + kept
        b[i] = (1 - kept) * (1 - shrink) * MEAN
    solve = torch.linalg.inv(torch.eye(len(levels)) - A)
    noise_variance = torch.stack([*reversed(variances), 1 + sigmas[0] ** 2])
    p = MultivariateNormal(solve @ b, solve @ torch.diag(noise_variance) @ solve.mT)
    return float(kl_divergence(q, p)) / math.log(2)


ENTROPY = float(Normal(MEAN, STD).entropy()) / math.log(2) - math.log2(2 * HALF_BIN)
"""Of such a pixel in bits, as bins of that width see it."""


def learns_a_share(share: float) -> Estimator:
    denoise = gaussian(MEAN, STD)
    return lambda x, sigma, label=None: Estimate(denoise(x, sigma, label), torch.full_like(x, share))


def all_cases() -> tuple[Tensor, Tensor]:
    """Pixels in rows and noise in columns, each of them with exactly the mean and variance of a normal distribution.

    The bound but for the bins of its decoder is quadratic in both: its mean over these is its expectation.
    """
    quantiles = torch.special.ndtri((torch.arange(32, dtype=torch.float64) + 0.5) / 32)
    unit = quantiles / quantiles.square().mean().sqrt()
    pixels, noise = torch.meshgrid(MEAN + STD * unit, unit, indexing="ij")
    return pixels[None, None], noise[None, None]


def expected_gap(estimate: Estimator, sigmas: Tensor, variance: reverse.LogVariance) -> float:
    """What the bound's expectation exceeds the entropy by, as `likelihood` computes it."""
    pixels, noise = all_cases()
    bound = likelihood.bound(estimate, pixels, sigmas, noise=lambda: noise, variance=variance)
    return float(bound.total) - ENTROPY


COSINE = noise.sigmas_of_betas(noise.cosine_betas(8))
GRIDS = {
    "chosen": f64(20, 5, 1.5, 0.5, 0.2, 0.1, 0),
    "cosine": noise.discrete_sigmas(range(8), COSINE),
    "linear": noise.discrete_sigmas(range(25), noise.sigmas_of_betas(noise.linear_betas(25))),
    "strided": noise.discrete_sigmas([60, 300, 999], CHAIN),
    "two steps": f64(3.0, 0.2, 0),
}
BINS = 2e-3
"""By which bins add to a gap in bits: the decoder's deviation tau is 0.06 or more here, (width / tau)^2 / 24 nats."""


@pytest.mark.parametrize("sigmas", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", ["small", "large"])
def test_the_bound_exceeds_the_entropy_by_the_exact_gap(sigmas: Tensor, name: str) -> None:
    variances = [fixed(name, sigma, s) for sigma, s in pairwise(sigmas[:-1])] + [last_variance(sigmas)]
    gap = expected_gap(without_variance(gaussian(MEAN, STD)), sigmas, VARIANCES[name])
    assert gap == pytest.approx(exact_gap(sigmas, variances), abs=BINS)
    assert gap > 10 * BINS


@pytest.mark.parametrize("sigmas", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_bound_with_a_learned_variance_exceeds_the_entropy_by_the_exact_gap(sigmas: Tensor, share: float) -> None:
    steps = list(pairwise(sigmas))
    low = [fixed("small", sigma, s) for sigma, s in steps[:-1]] + [last_variance(sigmas)]
    high = [fixed("large", sigma, s) for sigma, s in steps]
    variances = [small ** (1 - share) * large**share for small, large in zip(low, high, strict=True)]
    gap = expected_gap(learns_a_share(share), sigmas, reverse.learned)
    assert gap == pytest.approx(exact_gap(sigmas, variances), abs=BINS)


def true_share(sigmas: Tensor, sigma: Tensor) -> Tensor:
    """With which the learned variance of the step down from `sigma` is the true one."""
    s = sigmas[1 + int((sigmas == sigma).nonzero())]
    low = fixed("small", sigma, s) if s > 0 else last_variance(sigmas)
    return (true_variance(sigma, s) / low).log() / (fixed("large", sigma, s) / low).log()


@pytest.mark.parametrize("sigmas", GRIDS.values(), ids=GRIDS)
def test_the_bound_is_tight_but_for_the_prior_where_the_variance_is_learned_to_perfection(sigmas: Tensor) -> None:
    def estimate(x: Tensor, sigma: Tensor, label: Tensor | None) -> Estimate:
        return learns_a_share(float(true_share(sigmas, sigma[0])))(x, sigma, label)

    gap = expected_gap(estimate, sigmas, reverse.learned)
    q = Normal(MEAN, torch.sqrt(STD**2 + sigmas[0] ** 2))
    prior = float(kl_divergence(q, Normal(0.0, torch.sqrt(1 + sigmas[0] ** 2)))) / math.log(2)
    assert gap == pytest.approx(prior, abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["small", "large"])
def test_the_gap_falls_towards_zero_as_the_chain_grows(share: float) -> None:
    gaps = []
    for steps in (16, 32, 64, 128, 256):
        sigmas = noise.log_snr_sigmas(steps, 0.1, 100.0)
        # The decoder has the true variance, of which a finer chain would not bring it nearer.
        right = float(true_share(sigmas, sigmas[-2]))

        def estimate(x: Tensor, sigma: Tensor, label: Tensor | None, last=sigmas[-2], right=right) -> Estimate:
            return learns_a_share(right if sigma[0] == last else share)(x, sigma, label)

        gaps.append(expected_gap(estimate, sigmas, reverse.learned))
    # A step h in ln sigma has a variance that is wrong by the order of h, which costs its square; there are 1 / h.
    for before, after in pairwise(gaps):
        assert after < 0.56 * before
    assert 0 < gaps[-1] < 0.04


def test_the_bound_of_real_pixels_is_their_entropy_and_the_gap_within_five_standard_errors() -> None:
    sigmas = GRIDS["chosen"]
    draw = drawing(200, 1, 16, 16)
    x0 = (255 * (MEAN + STD * draw() + 1) / 2).round() / 255 * 2 - 1
    edges = torch.cat([f64(-math.inf), (PIXELS[1:] + PIXELS[:-1]) / 2, f64(math.inf)])
    probabilities = Normal(MEAN, STD).cdf(edges).diff()
    entropy = float(-(torch.special.xlogy(probabilities, probabilities)).sum()) / math.log(2)
    summary = likelihood.bound(
        without_variance(gaussian(MEAN, STD)), x0, sigmas, noise=draw, variance=reverse.large
    ).summary()
    variances = [fixed("large", sigma, s) for sigma, s in pairwise(sigmas[:-1])] + [last_variance(sigmas)]
    gap, error = summary["bits_per_dim"] - entropy, summary["standard_error"]
    assert gap == pytest.approx(exact_gap(sigmas, variances), abs=5 * error + BINS)
    assert error < 0.01
    assert summary["images"] == 200


# What is told of it.


def some_bound(images: int = 3, log_mass: LogMass = likelihood.exact) -> VLB:
    x0 = PIXELS[torch.arange(images * 16) % 256].view(images, 1, 4, 4)
    return likelihood.bound(
        without_variance(gaussian(MEAN, STD)),
        x0,
        GRIDS["chosen"],
        noise=drawing(images, 1, 4, 4),
        variance=reverse.large,
        log_mass=log_mass,
    )


def test_the_parts_sum_to_the_total_and_the_summary_is_their_mean_over_images() -> None:
    bound = some_bound()
    assert bound.terms.shape == (3, 6)
    torch.testing.assert_close(bound.total, bound.prior + sum(bound.terms.unbind(dim=1)))
    summary = bound.summary()
    assert summary["bits_per_dim"] == pytest.approx(float(bound.total.sum()) / 3)
    between = summary["bits_per_dim"] - summary["prior"] - summary["decoder"]
    assert between == pytest.approx(float(bound.terms[:, :-1].sum()) / 3)
    assert summary["standard_error"] == pytest.approx(float(bound.total.std()) / math.sqrt(3))
    assert some_bound(images=1).summary()["standard_error"] is None


def test_the_protocol_tells_how_the_bound_was_computed() -> None:
    summary = json.loads(json.dumps(some_bound(log_mass=likelihood.approximate).summary()))
    assert summary["protocol"] == {
        "steps": 6,
        "sigma_max": 20.0,
        "variance": "large",
        "decoder": "approximate",
        "estimate": "variational bound, one draw of noise a term",
    }


def test_errors_of_image_and_noise_are_told_for_each_step() -> None:
    x0 = PIXELS[torch.arange(32)].view(2, 1, 4, 4)
    off = f64(0.1, 0.4).view(2, 1, 1, 1)
    sigmas = GRIDS["chosen"]
    bound = likelihood.bound(without_variance(lambda x, *_: x0 + off), x0, sigmas, noise=drawing(2, 1, 4, 4))
    torch.testing.assert_close(bound.x0_mse, (off.flatten()[:, None] ** 2).expand(2, 6))
    # The noise as estimated is (x - D) / sigma.
    torch.testing.assert_close(bound.eps_mse, (off.flatten()[:, None] / sigmas[:-1]) ** 2)


def test_who_watches_sees_each_term_as_it_is_made() -> None:
    made, seen = [], []

    def watch(terms: Iterator[Term]) -> Iterable[Term]:
        for term in terms:
            seen.append(len(made))
            yield term

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        made.append(float(sigma[0]))
        return x

    x0 = torch.zeros(1, 1, 2, 2)
    estimate = without_variance(denoise)
    likelihood.bound(estimate, x0, GRIDS["chosen"], noise=drawing(1, 1, 2, 2), watch=watch)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert made == GRIDS["chosen"][:-1].tolist()


def test_a_bound_of_one_step_or_of_a_variance_that_was_not_learned_is_refused() -> None:
    estimate, x0 = without_variance(gaussian(MEAN, STD)), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="take at least 2"):
        likelihood.bound(estimate, x0, f64(80, 0), noise=drawing(1, 1, 2, 2))
    with pytest.raises(ValueError, match="choose small or large"):
        likelihood.bound(estimate, x0, f64(80, 1, 0), noise=drawing(1, 1, 2, 2), variance=reverse.learned)
