"""The Frechet distance against closed forms, and where other implementations fail."""

import numpy as np
import pytest
import torch

from undiffuse.metrics import frechet
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


def test_the_error_of_a_line_is_that_of_ordinary_least_squares() -> None:
    """Of the intercept: the square root of sigma^2 (X^T X)^-1, with n - 2 degrees of freedom."""
    counts = np.array([100, 150, 240, 400, 800])
    distances = 5 + 300 / counts + np.array([0.3, -0.5, 0.2, 0.4, -0.4])
    design = np.stack([np.ones(5), 1 / counts], axis=1)
    (intercept, slope), (squares,), *_ = np.linalg.lstsq(design, distances, rcond=None)
    line = fit_line(counts, distances)
    assert (line.at_infinity, line.slope) == (pytest.approx(intercept), pytest.approx(slope))
    assert line.scatter == pytest.approx((squares / 3) ** 0.5)
    assert line.standard_error == pytest.approx((squares / 3 * np.linalg.inv(design.T @ design)[0, 0]) ** 0.5)


@pytest.mark.parametrize(("n", "first"), [(600, 300), (10_400, 5000)])
def test_subsets_reach_from_half_or_5000_to_all_and_hold_no_sample_twice(
    n: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(rows: np.ndarray, indices: np.ndarray) -> Gaussian:
        seen.append(indices)
        return truth

    seen: list[np.ndarray] = []
    truth = Gaussian(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    monkeypatch.setattr(frechet, "gaussian", watched)
    line = extrapolate(truth, normal(n, 2, 0))
    assert line is not None
    assert line.counts == tuple(np.linspace(first, n, 10).round().astype(int).tolist())
    assert tuple(map(len, seen)) == line.counts
    assert all(len(np.unique(indices)) == len(indices) for indices in seen)
    assert seen[-1].tolist() == list(range(n))
