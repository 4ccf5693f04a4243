"""Guidance by a measurement: operators against their definitions, and Gaussian data, whose posterior is known."""

import numpy as np
import pytest
import torch
from helpers.gaussians import gaussian
from helpers.tensors import normal
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import avg_pool2d

from undiffuse.diffusion import samplers
from undiffuse.diffusion.denoiser import denoiser, without_variance
from undiffuse.diffusion.inverse_problems import (
    Separable,
    area_downsampling,
    corrected,
    gaussian_blur,
    grayscale,
    posterior,
)
from undiffuse.diffusion.noise import karras_sigmas

MEAN, STD, NOISE = 0.3, 0.5, 0.1

OPERATORS = [
    pytest.param(grayscale((3, 4, 2)), (3, 4, 2), id="gray"),
    pytest.param(grayscale((4, 2, 2)), (4, 2, 2), id="gray of RGBA"),
    pytest.param(gaussian_blur((1, 4, 5), 0.8), (1, 4, 5), id="blur"),
    pytest.param(area_downsampling((1, 4, 4), (2, 2)), (1, 4, 4), id="half"),
    pytest.param(area_downsampling((2, 5, 3), (2, 2)), (2, 5, 3), id="5x3 to 2x2"),
]


def matrix(operator: Separable, shape: tuple[int, int, int]) -> Tensor:
    """A, one column a pixel."""
    dimensions = int(np.prod(shape))
    return operator(torch.eye(dimensions, dtype=torch.float64).view(dimensions, *shape)).flatten(1).T


@pytest.mark.parametrize(("operator", "shape"), OPERATORS)
def test_the_adjoint_is_the_transpose(operator: Separable, shape: tuple[int, int, int]) -> None:
    x = normal(3, *shape)
    y = normal(*operator(x).shape, seed=1)
    left, right = (operator(x) * y).sum(dim=(1, 2, 3)), (x * operator.adjoint(y)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("operator", "shape"), OPERATORS)
def test_solve_inverts(operator: Separable, shape: tuple[int, int, int]) -> None:
    A, y = matrix(operator, shape), operator(normal(2, *shape))
    for variance, noise in ((0.7, 0.01), (2.0, 0.0)):
        whole = variance * A @ A.T + noise * torch.eye(len(A), dtype=torch.float64)
        expected = torch.linalg.solve(whole, y.flatten(1).T).T.view_as(y)
        found = operator.solve(y, torch.full((2,), variance, dtype=torch.float64), noise)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_gray_is_the_gray_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    expected = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    assert np.abs(grayscale((3, 6, 5))(x)[0, 0].numpy() - expected).max() <= 0.51  # Pillow rounds.


def test_gray_images_have_no_colors_to_find() -> None:
    with pytest.raises(ValueError, match="gray images, which have no color"):
        grayscale((1, 8, 8))


@pytest.mark.parametrize("std", [1.5, 3.0])
def test_blur_is_scipys_with_mirrored_edges(std: float) -> None:
    x = normal(1, 1, 24, 17)
    expected = gaussian_filter(x[0, 0].numpy(), std, mode="reflect", truncate=12)
    assert np.abs(gaussian_blur((1, 24, 17), std)(x)[0, 0].numpy() - expected).max() < 1e-4


def test_downsampling_is_the_mean_over_areas() -> None:
    x = normal(2, 3, 8, 12)
    torch.testing.assert_close(area_downsampling((3, 8, 12), (2, 4))(x), avg_pool2d(x, (4, 3)))
    uneven = area_downsampling((3, 8, 12), (3, 5))(x)
    torch.testing.assert_close(uneven.mean(dim=(2, 3)), x.mean(dim=(2, 3)))


def exact_posterior(A: Tensor, y: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x0 ~ N(mean, covariance) given y = A x0 + NOISE * eps."""
    gain = covariance @ A.T @ torch.linalg.inv(A @ covariance @ A.T + NOISE**2 * torch.eye(len(A), dtype=torch.float64))
    return mean + (y - mean @ A.T) @ gain.T, covariance - gain @ A @ covariance


@pytest.mark.parametrize(("operator", "shape"), OPERATORS)
@pytest.mark.parametrize("sigma", [0.01, 0.6, 30.0])
def test_the_guided_denoiser_is_exact_for_gaussian_data(
    sigma: float, operator: Separable, shape: tuple[int, int, int]
) -> None:
    A, x = matrix(operator, shape), MEAN + sigma * normal(3, *shape)
    y = operator(MEAN + STD * normal(1, *shape, seed=1))
    identity = torch.eye(A.shape[1], dtype=torch.float64)
    left = STD**2 * sigma**2 / (STD**2 + sigma**2)
    denoised = (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)
    expected, _ = exact_posterior(A, y.flatten(1), denoised.flatten(1), left * identity)
    predict = posterior(without_variance(gaussian(MEAN, STD)), operator, y, noise_std=NOISE, data_std=STD)
    found = predict(x, torch.full((3,), sigma, dtype=torch.float64), None).x0
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("operator", "shape"), OPERATORS)
def test_samples_of_gaussian_data_have_the_exact_posteriors_moments(
    operator: Separable, shape: tuple[int, int, int]
) -> None:
    """The flow is affine in its start: what it makes of no noise and of unit impulses gives its moments exactly."""
    A, y = matrix(operator, shape), operator(MEAN + STD * normal(1, *shape, seed=1))
    identity = torch.eye(A.shape[1], dtype=torch.float64)
    mean, covariance = exact_posterior(A, y.flatten(1), MEAN * torch.ones(1, len(identity)).double(), STD**2 * identity)
    predict = posterior(without_variance(gaussian(MEAN, STD)), operator, y, noise_std=NOISE, data_std=STD)
    sigmas = karras_sigmas(100, 0.002, 80)
    start = (mean + torch.cat([torch.zeros(1, len(identity)), sigmas[0] * identity])).view(-1, *shape)
    *_, end = samplers.heun(denoiser(predict), start, sigmas)
    nothing, impulses = end.x.flatten(1)[:1], end.x.flatten(1)[1:]
    torch.testing.assert_close(nothing, mean, rtol=0, atol=2e-3)
    torch.testing.assert_close((impulses - nothing).T @ (impulses - nothing), covariance, rtol=0, atol=2e-3)


def test_a_measurement_without_noise_is_met_exactly() -> None:
    operator, shape = area_downsampling((1, 4, 4), (2, 2)), (1, 4, 4)
    y = operator(normal(1, *shape))
    predict = posterior(without_variance(gaussian(MEAN, STD)), operator, y, noise_std=0.0, data_std=STD)
    sigmas = karras_sigmas(10, 0.002, 80)
    *_, end = samplers.euler(denoiser(predict), 80 * normal(2, *shape, seed=1), sigmas)
    torch.testing.assert_close(operator(end.x), y.expand(2, -1, -1, -1), rtol=0, atol=1e-6)


def length(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1)


@pytest.mark.parametrize(("operator", "shape"), OPERATORS)
def test_a_correction_removes_what_the_noise_does_not_explain(operator: Separable, shape: tuple[int, int, int]) -> None:
    truth = normal(1, *shape)
    y, wrong = operator(truth), truth + 0.5 * normal(3, *shape, seed=1)
    before, after = wrong - truth, corrected(wrong, operator, y, noise_std=0.01) - truth
    assert (length(operator(after)) < 0.1 * length(operator(before))).all()
    assert (length(after) < length(before)).all()
    explained = corrected(wrong, operator, y, noise_std=2.0)
    assert torch.equal(explained, wrong)
