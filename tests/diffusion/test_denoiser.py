"""The predictor of a network, guidance, clipping, and networks without a label."""

from collections.abc import Callable

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, parametrization
from undiffuse.diffusion.denoiser import (
    Denoise,
    Prediction,
    clipped,
    denoiser,
    predictor,
    split_output,
    spread,
    without_variance,
)
from undiffuse.diffusion.loss import denoising_loss

SCHEDULE = noise.sigmas_of_betas(noise.linear_betas(1000))
C_NOISE = parametrization.discrete_index(SCHEDULE)


def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """Some function of all its arguments."""
    shift = 0.0 if label is None else 0.1 * spread(label).to(x)
    return torch.tanh(0.8 * x) * torch.cos(spread(c_noise) / 300) + 0.3 * x.roll(1, dims=-1) + shift


def learning_network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """The same with channels for the variance, which depend on the label too."""
    shift = 0.0 if label is None else 0.3 * spread(label).to(x)
    return torch.cat([network(x, c_noise, label), torch.sin(x + shift)], dim=1)


def denoiser_of(network: Callable[..., Tensor], coefficients: parametrization.Parametrization) -> Denoise:
    return denoiser(predictor(network, coefficients, torch.float64))


@pytest.mark.parametrize("make", [parametrization.eps, parametrization.x0, parametrization.v])
def test_a_float32_network_gets_the_exact_timestep(make: Callable) -> None:
    seen = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        seen.append(c_noise)
        return x

    images = torch.zeros(1000, 1, 1, 1)
    denoising_loss(watching, make(C_NOISE), images, images, SCHEDULE)
    predictor(watching, make(C_NOISE))(images.double(), SCHEDULE, None)
    for c_noise in seen:
        assert torch.equal(c_noise, torch.arange(1000, dtype=torch.float32))


def test_network_and_denoiser_have_dtypes_of_their_own() -> None:
    seen = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        seen.append((x.dtype, c_noise.dtype))
        return network(x, c_noise, label)

    x, sigma = normal(2, 1, 4, 4), torch.tensor([0.1, 9.0], dtype=torch.float64)
    ours = denoiser(predictor(watching, parametrization.edm(0.5)))(x, sigma, None)
    assert seen == [(torch.float32, torch.float32)]
    assert ours.dtype == torch.float64
    # Only the network's part is rounded: where c_skip is 1 and c_out small, the rest keeps its digits.
    torch.testing.assert_close(ours, denoiser_of(network, parametrization.edm(0.5))(x, sigma, None), rtol=0, atol=1e-6)


def test_twice_the_channels_are_f_and_variance_fraction() -> None:
    x, F, v = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    both, fraction = split_output(torch.cat([F, v], dim=1).float(), x)
    assert fraction is not None
    # Nichol & Dhariwal 2021, released code: -1 is the small variance, 1 the large one.
    torch.testing.assert_close(both, F, rtol=0, atol=1e-6)
    torch.testing.assert_close(fraction, (v + 1) / 2, rtol=0, atol=1e-6)
    assert both.dtype == fraction.dtype == torch.float64
    plain, nothing = split_output(F.float(), x)
    assert torch.equal(plain, both)
    assert nothing is None


def test_a_learned_variance_does_not_change_the_denoiser() -> None:
    x, sigma = normal(3, 1, 4, 4), SCHEDULE[[10, 500, 999]]
    for make in (parametrization.eps, parametrization.x0, parametrization.v):
        with_variance = denoiser_of(learning_network, make(C_NOISE))(x, sigma, None)
        assert torch.equal(with_variance, denoiser_of(network, make(C_NOISE))(x, sigma, None))


def test_a_denoiser_as_a_predictor_has_no_variance() -> None:
    x, sigma, label = normal(3, 1, 4, 4), SCHEDULE[[10, 500, 999]], torch.tensor([0, 1, 2])
    denoise = denoiser_of(network, parametrization.v(C_NOISE))
    x0, fraction = without_variance(denoise)(x, sigma, label)
    assert torch.equal(x0, denoise(x, sigma, label))
    assert fraction is None


def test_without_a_label_the_network_gets_none() -> None:
    seen = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        seen.append(label)
        return x

    x, sigma = normal(2, 1, 4, 4), torch.ones(2, dtype=torch.float64)
    predict = predictor(watching, parametrization.edm(0.5))
    predict(x, sigma, None)
    denoiser(predict)(x, sigma, None)
    clipped(predict)(x, sigma, None)
    denoising_loss(watching, parametrization.edm(0.5), x, x, sigma)
    assert seen == [None] * 4


def test_clipping_changes_only_x0_out_of_range() -> None:
    far_out = torch.tensor([-7.0, -1.0, -0.3, 0.0, 0.999, 1.0, 1.001]).view(1, 1, 1, 7)
    clip = clipped(lambda x, sigma, label: Prediction(far_out, 2 * far_out))(far_out, torch.ones(1), None)
    assert torch.equal(clip.x0.flatten(), torch.tensor([-1.0, -1.0, -0.3, 0.0, 0.999, 1.0, 1.0]))
    assert clip.variance_fraction is not None
    assert torch.equal(clip.variance_fraction, 2 * far_out)
