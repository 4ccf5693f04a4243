"""KID and the Inception Score where they can be worked out by hand."""

import numpy as np
import pytest

from undiffuse.metrics.scores import inception_score, kernel_distance


def test_the_kernel_distance_is_unbiased() -> None:
    """Two sets of one distribution: the mean over many subsets is 0 within its standard error."""
    rng = np.random.default_rng(0)
    values = [
        kernel_distance(*rng.normal(size=(2, 60, 8)).astype(np.float32), subsets=1, subset_size=60) for _ in range(200)
    ]
    means = np.array([value.mean for value in values if value])
    assert abs(means.mean()) < 4 * means.std() / len(means) ** 0.5


def test_the_kernel_distance_is_the_sum_written_out() -> None:
    x, y = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), np.array([[1.0, 1.0], [3.0, 0.0]], np.float32)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 2 + 1) ** 3)

    expected = k(x[0], x[1]) + k(y[0], y[1]) - 2 * np.mean([k(a, b) for a in x for b in y])
    found = kernel_distance(x, y, subsets=3)
    assert found is not None
    assert (found.mean, found.sd, found.part_size) == (pytest.approx(expected), pytest.approx(0, abs=1e-12), 2)
    assert kernel_distance(x[:1], y) is None


def test_the_inception_score_of_sure_and_even_predictions_is_the_number_of_classes() -> None:
    sure = np.tile(100 * np.eye(5, dtype=np.float32), (400, 1))
    found = inception_score(sure)
    assert found is not None
    assert found.mean == pytest.approx(5, rel=0.02)
    alike = inception_score(np.ones((50, 5), np.float32))
    assert alike is not None
    assert alike.mean == pytest.approx(1)
    assert inception_score(sure[:9]) is None
