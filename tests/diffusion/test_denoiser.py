"""The estimator of a network, and that guidance, clipping and the missing label do what they say."""

from collections.abc import Callable

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, parametrization
from undiffuse.diffusion.denoiser import (
    NO_LABEL,
    Denoise,
    Estimate,
    clipped,
    denoiser,
    estimator,
    guided,
    outputs,
    spread,
    without_variance,
)
from undiffuse.diffusion.loss import denoising_loss

CHAIN = noise.sigmas_of_betas(noise.linear_betas(1000))
CLOCK = parametrization.discrete_index(CHAIN)


def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """Some function of all it is given."""
    asked = 0.0 if label is None else 0.1 * spread(label).to(x)
    return torch.tanh(0.8 * x) * torch.cos(spread(c_noise) / 300) + 0.3 * x.roll(1, dims=-1) + asked


def learning_network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """With channels for the variance, which depend on the label too."""
    asked = 0.0 if label is None else 0.3 * spread(label).to(x)
    return torch.cat([network(x, c_noise, label), torch.sin(x + asked)], dim=1)


def denoiser_of(network: Callable[..., Tensor], coefficients: parametrization.Parametrization) -> Denoise:
    return denoiser(estimator(network, coefficients, torch.float64))


@pytest.mark.parametrize("make", [parametrization.eps, parametrization.x0, parametrization.v])
def test_a_float32_network_is_told_the_exact_index_in_training_and_sampling(make: Callable) -> None:
    told = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        told.append(c_noise)
        return x

    images = torch.zeros(1000, 1, 1, 1)
    denoising_loss(watching, make(CLOCK), images, images, CHAIN)
    estimator(watching, make(CLOCK))(images.double(), CHAIN, None)
    for c_noise in told:
        assert torch.equal(c_noise, torch.arange(1000, dtype=torch.float32))


def test_the_network_computes_in_its_dtype_and_the_denoiser_in_that_of_x() -> None:
    seen = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        seen.append((x.dtype, c_noise.dtype))
        return network(x, c_noise, label)

    x, sigma = normal(2, 1, 4, 4), torch.tensor([0.1, 9.0], dtype=torch.float64)
    ours = denoiser(estimator(watching, parametrization.edm(0.5)))(x, sigma, None)
    assert seen == [(torch.float32, torch.float32)]
    assert ours.dtype == torch.float64
    # Only the network's share is rounded: where c_skip is 1 and c_out small, the rest keeps its digits.
    torch.testing.assert_close(ours, denoiser_of(network, parametrization.edm(0.5))(x, sigma, None), rtol=0, atol=1e-6)


def test_twice_the_channels_are_the_output_and_the_variances_fraction() -> None:
    x, F, v = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    both, fraction = outputs(torch.cat([F, v], dim=1).float(), x)
    assert fraction is not None
    # Nichol & Dhariwal 2021, released code: -1 is the small variance, 1 the large one.
    torch.testing.assert_close(both, F, rtol=0, atol=1e-6)
    torch.testing.assert_close(fraction, (v + 1) / 2, rtol=0, atol=1e-6)
    assert both.dtype == fraction.dtype == torch.float64
    alone, nothing = outputs(F.float(), x)
    assert torch.equal(alone, both)
    assert nothing is None


def test_a_learned_variance_leaves_the_denoiser_as_it_is() -> None:
    x, sigma = normal(3, 1, 4, 4), CHAIN[[10, 500, 999]]
    for make in (parametrization.eps, parametrization.x0, parametrization.v):
        with_variance = denoiser_of(learning_network, make(CLOCK))(x, sigma, None)
        assert torch.equal(with_variance, denoiser_of(network, make(CLOCK))(x, sigma, None))


def test_a_denoiser_as_an_estimator_has_learned_no_variance() -> None:
    x, sigma, label = normal(3, 1, 4, 4), CHAIN[[10, 500, 999]], torch.tensor([0, 1, 2])
    denoise = denoiser_of(network, parametrization.v(CLOCK))
    x0, fraction = without_variance(denoise)(x, sigma, label)
    assert torch.equal(x0, denoise(x, sigma, label))
    assert fraction is None


def test_without_a_label_the_network_is_told_none() -> None:
    told = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        told.append(label)
        return x

    x, sigma = normal(2, 1, 4, 4), torch.ones(2, dtype=torch.float64)
    estimate = estimator(watching, parametrization.edm(0.5))
    estimate(x, sigma, None)
    denoiser(estimate)(x, sigma, None)
    guided(estimate, 3.0)(x, sigma, None)
    clipped(estimate)(x, sigma, None)
    denoising_loss(watching, parametrization.edm(0.5), x, x, sigma)
    assert told == [None] * 5


def test_guidance_extrapolates_from_no_label_through_the_label() -> None:
    estimate = estimator(learning_network, parametrization.v(CLOCK), torch.float64)
    x, sigma, label = normal(3, 1, 4, 4), CHAIN[[10, 500, 999]], torch.tensor([0, 1, 2])
    with_label, without = estimate(x, sigma, label), estimate(x, sigma, torch.full((3,), NO_LABEL))
    for scale in (0.0, 1.0, 1.5, 4.0):
        x0, fraction = guided(estimate, scale)(x, sigma, label)
        # Ho & Salimans 2022, Eq. 6, as they write it: on eps, with w = scale - 1.
        eps, eps_without = (x - with_label.x0) / spread(sigma), (x - without.x0) / spread(sigma)
        guided_eps = scale * eps - (scale - 1) * eps_without
        torch.testing.assert_close(x0, x - spread(sigma) * guided_eps)
        # The variance is that of the label: it is no estimate of the image that could be exaggerated.
        torch.testing.assert_close(fraction, with_label.fraction)


def test_guidance_asks_once_where_once_is_enough() -> None:
    batches = []

    def estimate(x: Tensor, sigma: Tensor, label: Tensor | None) -> Estimate:
        batches.append(len(x))
        return Estimate(x, None)

    x, sigma, label = normal(3, 1, 4, 4), torch.ones(3), torch.tensor([0, 1, 2])
    guided(estimate, 1.0)(x, sigma, label)
    guided(estimate, 2.0)(x, sigma, None)
    assert guided(estimate, 2.0)(x, sigma, label).fraction is None
    assert batches == [3, 3, 6]


def test_clipping_holds_the_estimate_in_range_and_leaves_the_rest() -> None:
    far_out = torch.tensor([-7.0, -1.0, -0.3, 0.0, 0.999, 1.0, 1.001]).view(1, 1, 1, 7)
    clip = clipped(lambda x, sigma, label: Estimate(far_out, 2 * far_out))(far_out, torch.ones(1), None)
    assert torch.equal(clip.x0.flatten(), torch.tensor([-1.0, -1.0, -0.3, 0.0, 0.999, 1.0, 1.0]))
    assert clip.fraction is not None
    assert torch.equal(clip.fraction, 2 * far_out)
