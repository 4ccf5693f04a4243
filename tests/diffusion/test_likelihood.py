"""The VLB: each term against torch's own divergences, and the whole against its exact gap."""

import json
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import mpmath
import pytest
import torch
from helpers.gaussians import gaussian, noise_source
from helpers.tensors import normal
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from undiffuse.diffusion import likelihood, noise, reverse
from undiffuse.diffusion.denoiser import Predict, Prediction, without_variance
from undiffuse.diffusion.likelihood import HALF_BIN, VLB, LogMass, Term

SCHEDULE = noise.sigmas_of_betas(noise.linear_betas(1000))
PIXELS = torch.linspace(-1, 1, 256, dtype=torch.float64)
VARIANCES = {"small": reverse.small, "large": reverse.large, "learned": reverse.learned}
MEAN, STD = 0.1, 0.15  # Wider than a pixel's bin, and far enough inside [-1, 1] that all mass is there.


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bits_of(nats: Tensor) -> Tensor:
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


# Term by term.


@pytest.mark.parametrize("sigma", [0.3, 12.0, 157.0, 2e4])
def test_the_prior_is_a_divergence_at_the_noisiest_level(sigma: float) -> None:
    x0 = normal(3, 1, 4, 4).clamp(-1, 1)
    q, p = Normal(x0, sigma), Normal(torch.zeros_like(x0), math.sqrt(1 + sigma**2))
    torch.testing.assert_close(
        likelihood.prior_bits(x0, f64(sigma)[0]), bits_of(kl_divergence(q, p)), rtol=1e-6, atol=1e-15
    )


@pytest.mark.parametrize("name", ["small", "large", "learned"])
def test_a_term_is_the_divergence_of_the_posteriors(name: str) -> None:
    sigma, s = SCHEDULE[[1, 200, 999, 999]], SCHEDULE[[0, 100, 998, 0]]
    x0, predicted_x0 = normal(4, 1, 4, 4).clamp(-1, 1), normal(4, 1, 4, 4, seed=1)
    fraction = torch.rand(4, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = likelihood.term_bits(Prediction(predicted_x0, fraction), x0, sigma, s, VARIANCES[name], last=-9.0)

    sigma, s = sigma.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
    x = x0 + sigma * normal(4, 1, 4, 4, seed=3)
    low, high = reverse.small_variance(sigma, s), reverse.large_variance(sigma, s)
    of_p = {"small": low, "large": high, "learned": low ** (1 - fraction) * high**fraction}
    q = Normal(reverse.posterior_mean(x, x0, sigma, s), low.sqrt())
    p = Normal(reverse.posterior_mean(x, predicted_x0, sigma, s), of_p[name].sqrt())
    torch.testing.assert_close(ours, bits_of(kl_divergence(q, p)), rtol=1e-9, atol=0)


def test_the_step_to_0_costs_the_bits_of_the_decoder() -> None:
    sigma, s = SCHEDULE[[5, 5]], torch.cat([f64(0.0), SCHEDULE[4:5]])
    x0, predicted_x0 = PIXELS[[120, 130]].view(2, 1, 1, 1), PIXELS[[121, 128]].view(2, 1, 1, 1)
    for log_mass in (likelihood.exact, likelihood.approximate):
        ours = likelihood.term_bits(Prediction(predicted_x0, None), x0, sigma, s, reverse.small, -8.0, log_mass)
        decoder = likelihood.decoder_bits(x0, predicted_x0, f64(-8.0), log_mass)
        assert ours[0] == decoder[0]
        assert ours[1] != decoder[1]


@pytest.mark.parametrize("log_mass", [likelihood.exact, likelihood.approximate])
@pytest.mark.parametrize("std", [0.002, 0.01, 0.1, 2.0])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.0017, 0.99, 5.0])
def test_the_256_probabilities_of_the_decoder_sum_to_one(mean: float, std: float, log_mass: LogMass) -> None:
    x0 = PIXELS.view(256, 1, 1, 1)
    bits = likelihood.decoder_bits(x0, torch.full_like(x0, mean), f64(2 * math.log(std)), log_mass)
    # The approximation gives no bin less than 1e-12.
    assert float((2**-bits).sum()) == pytest.approx(1, abs=256e-12 + 1e-12)


def test_the_decoder_gives_a_pixel_the_mass_of_its_bin() -> None:
    mean, std = 0.3, 0.4
    p = Normal(f64(mean), f64(std))
    edges = torch.cat([f64(-math.inf), (PIXELS[1:] + PIXELS[:-1]) / 2, f64(math.inf)])
    x0 = PIXELS.view(256, 1, 1, 1)
    ours = likelihood.decoder_bits(x0, torch.full_like(x0, mean), f64(2 * math.log(std)))
    torch.testing.assert_close(2**-ours, p.cdf(edges[1:]) - p.cdf(edges[:-1]), rtol=1e-9, atol=0)
    assert edges[128] - edges[127] == pytest.approx(2 * HALF_BIN)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("distance", [0.0, 0.02, 0.05, -0.2, 1.5])
def test_the_decoder_is_exact_far_out_with_a_gradient(distance: float, dtype: torch.dtype) -> None:
    std = 0.005
    x0 = PIXELS[[130]].view(1, 1, 1, 1).to(dtype)
    mean = (x0 + distance).requires_grad_()
    bits = likelihood.decoder_bits(x0, mean, torch.tensor(2 * math.log(std), dtype=dtype))
    with mpmath.workdps(60):
        z = [
            (mpmath.mpf(float(x0)) + side * mpmath.mpf(HALF_BIN) - mpmath.mpf(float(mean.detach()))) / std
            for side in (-1, 1)
        ]
        z = (
            sorted(-abs(end) for end in z) if z[0] * z[1] > 0 else z
        )  # Of the two equal tails, the one that keeps its digits.
        expected = -float(mpmath.log(mpmath.ncdf(z[1]) - mpmath.ncdf(z[0]), 2))
    assert bits.item() == pytest.approx(expected, rel=1e-9 if dtype == torch.float64 else 1e-3)
    (gradient,) = torch.autograd.grad(bits.sum(), mean)
    assert float(gradient) * distance > 0 or abs(float(gradient)) < 1e-2 / std


def test_the_outermost_bins_have_a_gradient_too() -> None:
    x0 = PIXELS[[0, 255]].view(2, 1, 1, 1)
    mean = torch.zeros_like(x0).requires_grad_()
    (gradient,) = torch.autograd.grad(likelihood.decoder_bits(x0, mean, f64(-4.0)).sum(), mean)
    assert gradient[0] > 0 > gradient[1]


def test_with_the_approximation_a_pixel_costs_at_most_40_bits() -> None:
    x0 = PIXELS[[0, 128, 255]].view(3, 1, 1, 1)
    bits = likelihood.decoder_bits(x0, -x0.sign() * 0.9, f64(2 * math.log(0.001)), likelihood.approximate)
    torch.testing.assert_close(bits, torch.full_like(bits, -math.log2(1e-12)))


def test_improved_ddpms_approximation_is_good_to_4e_4() -> None:
    z = torch.linspace(-12, 12, 10_001, dtype=torch.float64)
    mass = likelihood.approximate(z, z + 0.7).exp()
    assert (mass - likelihood.exact(z, z + 0.7).exp()).abs().max() < 4e-4


# The whole. With the exact denoiser of Gaussian pixels everything is linear and normal: x_0 ... x_T have one normal
# distribution, q, and another in the model, p. The VLB exceeds the entropy by KL(q || p).


def fixed(name: str, sigma: Tensor, s: Tensor) -> Tensor:
    """Ho et al.'s two choices in their own notation, beta tilde and beta, with x_t on this axis."""
    beta, alpha_bar, alpha_bar_prev = 1 - (1 + s**2) / (1 + sigma**2), 1 / (1 + sigma**2), 1 / (1 + s**2)
    return {"small": (1 - alpha_bar_prev) / (1 - alpha_bar) * beta, "large": beta}[name] / alpha_bar_prev


def true_variance(sigma: Tensor, s: Tensor) -> Tensor:
    """Of x_s given x_sigma, for pixels that are N(MEAN, STD^2)."""
    return (STD**2 + s**2) * (sigma**2 - s**2) / (STD**2 + sigma**2)


def last_variance(sigmas: Tensor) -> Tensor:
    """The variance of the last step: the small variance of the step before, in DDPM's scale."""
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
"""Of such a pixel in bits, in bins of that width."""


def with_fraction(fraction: float) -> Predict:
    denoise = gaussian(MEAN, STD)
    return lambda x, sigma, label=None: Prediction(denoise(x, sigma, label), torch.full_like(x, fraction))


def all_cases() -> tuple[Tensor, Tensor]:
    """Pixels in rows and noise in columns, each of them with exactly the mean and variance of a normal distribution.

    Except for the bins of its decoder, the VLB is quadratic in both: its mean over these is its expectation.
    """
    quantiles = torch.special.ndtri((torch.arange(32, dtype=torch.float64) + 0.5) / 32)
    unit = quantiles / quantiles.square().mean().sqrt()
    pixels, noise = torch.meshgrid(MEAN + STD * unit, unit, indexing="ij")
    return pixels[None, None], noise[None, None]


def expected_gap(predict: Predict, sigmas: Tensor, variance: reverse.LogVariance) -> float:
    """By how much the expected VLB exceeds the entropy, as `likelihood` computes it."""
    pixels, noise = all_cases()
    vlb = likelihood.vlb(predict, pixels, sigmas, noise=lambda: noise, variance=variance)
    return float(vlb.total) - ENTROPY


COSINE = noise.sigmas_of_betas(noise.cosine_betas(8))
SIGMAS = {
    "chosen": f64(20, 5, 1.5, 0.5, 0.2, 0.1, 0),
    "cosine": noise.discrete_sigmas(range(8), COSINE),
    "linear": noise.discrete_sigmas(range(25), noise.sigmas_of_betas(noise.linear_betas(25))),
    "strided": noise.discrete_sigmas([60, 300, 999], SCHEDULE),
    "two steps": f64(3.0, 0.2, 0),
}
BINS = 2e-3
"""What bins add to a gap in bits: (width / tau)^2 / 24 nats, where the decoder's deviation tau is at least 0.06."""


@pytest.mark.parametrize("sigmas", SIGMAS.values(), ids=SIGMAS)
@pytest.mark.parametrize("name", ["small", "large"])
def test_the_vlb_exceeds_the_entropy_by_the_exact_gap(sigmas: Tensor, name: str) -> None:
    variances = [fixed(name, sigma, s) for sigma, s in pairwise(sigmas[:-1])] + [last_variance(sigmas)]
    gap = expected_gap(without_variance(gaussian(MEAN, STD)), sigmas, VARIANCES[name])
    assert gap == pytest.approx(exact_gap(sigmas, variances), abs=BINS)
    assert gap > 10 * BINS


@pytest.mark.parametrize("sigmas", SIGMAS.values(), ids=SIGMAS)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_the_gap_with_a_learned_variance_is_exact_too(sigmas: Tensor, fraction: float) -> None:
    steps = list(pairwise(sigmas))
    low = [fixed("small", sigma, s) for sigma, s in steps[:-1]] + [last_variance(sigmas)]
    high = [fixed("large", sigma, s) for sigma, s in steps]
    variances = [small ** (1 - fraction) * large**fraction for small, large in zip(low, high, strict=True)]
    gap = expected_gap(with_fraction(fraction), sigmas, reverse.learned)
    assert gap == pytest.approx(exact_gap(sigmas, variances), abs=BINS)


def true_fraction(sigmas: Tensor, sigma: Tensor) -> Tensor:
    """The variance fraction with which the step down from `sigma` has the true variance."""
    s = sigmas[1 + int((sigmas == sigma).nonzero())]
    low = fixed("small", sigma, s) if s > 0 else last_variance(sigmas)
    return (true_variance(sigma, s) / low).log() / (fixed("large", sigma, s) / low).log()


@pytest.mark.parametrize("sigmas", SIGMAS.values(), ids=SIGMAS)
def test_with_the_true_variance_only_the_prior_is_lost(sigmas: Tensor) -> None:
    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        return with_fraction(float(true_fraction(sigmas, sigma[0])))(x, sigma, label)

    gap = expected_gap(predict, sigmas, reverse.learned)
    q = Normal(MEAN, torch.sqrt(STD**2 + sigmas[0] ** 2))
    prior = float(kl_divergence(q, Normal(0.0, torch.sqrt(1 + sigmas[0] ** 2)))) / math.log(2)
    assert gap == pytest.approx(prior, abs=1e-4)


@pytest.mark.parametrize("fraction", [0.0, 1.0], ids=["small", "large"])
def test_the_gap_falls_toward_0_with_more_steps(fraction: float) -> None:
    gaps = []
    for steps in (16, 32, 64, 128, 256):
        sigmas = noise.log_snr_sigmas(steps, 0.1, 100.0)
        # The decoder has the true variance: more steps would not bring it closer.
        right = float(true_fraction(sigmas, sigmas[-2]))

        def predict(x: Tensor, sigma: Tensor, label: Tensor | None, last=sigmas[-2], right=right) -> Prediction:
            return with_fraction(right if sigma[0] == last else fraction)(x, sigma, label)

        gaps.append(expected_gap(predict, sigmas, reverse.learned))
    # The variance of a step h in ln sigma is off by O(h), which costs O(h^2); there are 1 / h steps.
    for before, after in pairwise(gaps):
        assert after < 0.56 * before
    assert 0 < gaps[-1] < 0.04


def test_the_vlb_of_real_pixels_is_their_entropy_plus_the_gap() -> None:
    sigmas = SIGMAS["chosen"]
    noise = noise_source(200, 1, 16, 16)
    x0 = (255 * (MEAN + STD * noise() + 1) / 2).round() / 255 * 2 - 1
    edges = torch.cat([f64(-math.inf), (PIXELS[1:] + PIXELS[:-1]) / 2, f64(math.inf)])
    probabilities = Normal(MEAN, STD).cdf(edges).diff()
    entropy = float(-(torch.special.xlogy(probabilities, probabilities)).sum()) / math.log(2)
    summary = likelihood.vlb(
        without_variance(gaussian(MEAN, STD)), x0, sigmas, noise=noise, variance=reverse.large
    ).summary()
    variances = [fixed("large", sigma, s) for sigma, s in pairwise(sigmas[:-1])] + [last_variance(sigmas)]
    gap, error = summary["bits_per_dim"] - entropy, summary["standard_error"]
    assert gap == pytest.approx(exact_gap(sigmas, variances), abs=5 * error + BINS)
    assert error < 0.01
    assert summary["images"] == 200


# What is reported.


def some_vlb(images: int = 3, log_mass: LogMass = likelihood.exact) -> VLB:
    x0 = PIXELS[torch.arange(images * 16) % 256].view(images, 1, 4, 4)
    return likelihood.vlb(
        without_variance(gaussian(MEAN, STD)),
        x0,
        SIGMAS["chosen"],
        noise=noise_source(images, 1, 4, 4),
        variance=reverse.large,
        log_mass=log_mass,
    )


def test_the_terms_sum_to_the_total_and_its_summary() -> None:
    vlb = some_vlb()
    assert vlb.terms.shape == (3, 6)
    torch.testing.assert_close(vlb.total, vlb.prior + sum(vlb.terms.unbind(dim=1)))
    summary = vlb.summary()
    assert summary["bits_per_dim"] == pytest.approx(float(vlb.total.sum()) / 3)
    between = summary["bits_per_dim"] - summary["prior"] - summary["decoder"]
    assert between == pytest.approx(float(vlb.terms[:, :-1].sum()) / 3)
    assert summary["standard_error"] == pytest.approx(float(vlb.total.std()) / math.sqrt(3))
    assert some_vlb(images=1).summary()["standard_error"] is None


def test_the_protocol_states_how_the_vlb_was_computed() -> None:
    summary = json.loads(json.dumps(some_vlb(log_mass=likelihood.approximate).summary()))
    assert summary["protocol"] == {
        "steps": 6,
        "sigma_max": 20.0,
        "variance": "large",
        "decoder": "approximate",
        "estimate": "VLB, one noise sample per term",
    }


def test_errors_of_x0_and_eps_are_reported_for_each_step() -> None:
    x0 = PIXELS[torch.arange(32)].view(2, 1, 4, 4)
    off = f64(0.1, 0.4).view(2, 1, 1, 1)
    sigmas = SIGMAS["chosen"]
    vlb = likelihood.vlb(without_variance(lambda x, *_: x0 + off), x0, sigmas, noise=noise_source(2, 1, 4, 4))
    torch.testing.assert_close(vlb.x0_mse, (off.flatten()[:, None] ** 2).expand(2, 6))
    # The predicted noise is (x - D) / sigma.
    torch.testing.assert_close(vlb.eps_mse, (off.flatten()[:, None] / sigmas[:-1]) ** 2)


def test_watch_sees_each_term_as_it_is_computed() -> None:
    made, seen = [], []

    def watch(terms: Iterator[Term]) -> Iterable[Term]:
        for term in terms:
            seen.append(len(made))
            yield term

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        made.append(float(sigma[0]))
        return x

    x0 = torch.zeros(1, 1, 2, 2)
    predict = without_variance(denoise)
    likelihood.vlb(predict, x0, SIGMAS["chosen"], noise=noise_source(1, 1, 2, 2), watch=watch)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert made == SIGMAS["chosen"][:-1].tolist()


def test_one_step_or_a_missing_variance_is_refused() -> None:
    predict, x0 = without_variance(gaussian(MEAN, STD)), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="at least 2 steps"):
        likelihood.vlb(predict, x0, f64(80, 0), noise=noise_source(1, 1, 2, 2))
    with pytest.raises(ValueError, match="choose small or large"):
        likelihood.vlb(predict, x0, f64(80, 1, 0), noise=noise_source(1, 1, 2, 2), variance=reverse.learned)


def test_without_a_kernel_the_normal_distributions_logarithm_is_as_exact_as_float32() -> None:
    z = torch.linspace(-40, 12, 20001)
    exact_z = z.double().requires_grad_()
    exact = torch.special.log_ndtr(exact_z)
    approximate_z = z.clone().requires_grad_()
    approximate = likelihood.approximate_log_ndtr(approximate_z)
    torch.testing.assert_close(approximate.double(), exact, rtol=4e-6, atol=6e-7)  # torch's own is as far off.
    gradients = (
        torch.autograd.grad(each.sum(), at)[0] for each, at in ((approximate, approximate_z), (exact, exact_z))
    )
    torch.testing.assert_close(*(each.double() for each in gradients), rtol=1e-5, atol=1e-6)
    ends = torch.tensor([-math.inf, math.inf])
    assert likelihood.approximate_log_ndtr(ends).tolist() == [-math.inf, 0.0]
