"""The Frechet distance against closed forms, and where other implementations fail."""

import numpy as np
import pytest
import torch

from undiffuse.metrics.frechet import Gaussian, extrapolate, fit_line, frechet_distance, gaussian


def normal(n: int, d: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (mean + scale * np.random.default_rng(seed).normal(size=(n, d))).astype(np.float32)


def test_the_distance_between_gaussians_is_the_closed_form() -> None:
    # Commuting covariances: |mu|^2 + sum (sqrt(a) - sqrt(b))^2. Rotating a factor must not matter.
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    a, b = torch.arange(1.0, 7.0, dtype=torch.float64), torch.tensor([4.0, 1.0, 9.0, 0.25, 1.0, 2.0]).double()
    mean = torch.arange(6.0, dtype=torch.float64)
    one = Gaussian(torch.zeros(6, dtype=torch.float64), torch.diag(a.sqrt()) @ rotation)
    other = Gaussian(mean, torch.diag(b.sqrt()) @ rotation.T)
    expected = mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(one, other) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("n", [7, 100])
def test_few_and_many_rows_give_numpys_covariance(n: int) -> None:
    rows = normal(n, 20, seed=n, mean=3)
    fitted = gaussian(rows)
    assert fitted.mean.numpy() == pytest.approx(rows.mean(axis=0, dtype=np.float64), rel=1e-9)
    assert (fitted.factor @ fitted.factor.T).numpy() == pytest.approx(np.cov(rows, rowvar=False), abs=1e-9)


@pytest.mark.parametrize("n", [2, 50, 500])
def test_the_distance_is_symmetric_and_zero_for_the_same_set(n: int) -> None:
    a, b = gaussian(normal(n, 64, 0)), gaussian(normal(n + 3, 64, 1, mean=0.2, scale=2))
    assert abs(frechet_distance(a, a)) < 1e-6
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_constant_features_have_a_finite_distance() -> None:
    constant = gaussian(np.ones((50, 16), np.float32))
    assert frechet_distance(constant, constant) == 0
    assert frechet_distance(constant, gaussian(np.full((50, 16), 3, np.float32))) == pytest.approx(16 * 4)


def test_a_single_image_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        gaussian(np.ones((1, 16), np.float32))


def test_a_line_is_fitted_exactly() -> None:
    counts = np.array([100, 200, 400, 800])
    line = fit_line(counts, 5 + 300 / counts)
    assert line.at_infinity == pytest.approx(5)
    assert line.slope == pytest.approx(300)
    assert line.standard_error == pytest.approx(0, abs=1e-9)


def test_extrapolation_removes_the_bias_of_few_samples() -> None:
    """Samples from the true distribution: their distance is all bias, here about d^2 / 2N, and 0 without it."""
    d, n = 16, 2000
    truth = Gaussian(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    rows = normal(n, d, 0)
    line = extrapolate(truth, rows)
    assert line is not None
    biased = frechet_distance(truth, gaussian(rows))
    assert line.slope > 0
    assert abs(line.at_infinity) < biased / 2
    assert extrapolate(truth, rows[:499]) is None
