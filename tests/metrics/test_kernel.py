"""The kernel distance where it can be worked out by hand."""

import numpy as np
import pytest

from undiffuse.metrics.kernel import kernel_distance


def test_the_kernel_distance_is_unbiased() -> None:
    """Two sets from one distribution: the mean of many distances is 0 within its standard error."""
    rng = np.random.default_rng(0)
    distances = [
        kernel_distance(*rng.normal(size=(2, 60, 8)).astype(np.float32), subsets=1, subset_size=60) for _ in range(200)
    ]
    means = np.array([distance.mean for distance in distances if distance])
    assert abs(means.mean()) < 4 * means.std() / len(means) ** 0.5


def test_the_kernel_distance_is_its_sum_written_out() -> None:
    x, y = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), np.array([[1.0, 1.0], [3.0, 0.0]], np.float32)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 2 + 1) ** 3)

    expected = k(x[0], x[1]) + k(y[0], y[1]) - 2 * np.mean([k(a, b) for a in x for b in y])
    found = kernel_distance(x, y, subsets=3)
    assert found is not None
    assert (found.mean, found.sd) == (pytest.approx(expected), pytest.approx(0, abs=1e-12))
    assert (found.subsets, found.subset_size) == (3, 2)


def test_one_image_has_no_kernel_distance() -> None:
    assert kernel_distance(np.ones((1, 2), np.float32), np.ones((5, 2), np.float32)) is None


def test_a_caller_can_watch_the_subsets() -> None:
    seen = []

    def watch(items, what: str, total: int):
        for item in items:
            seen.append((what, item, total))
            yield item

    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    watched, plain = kernel_distance(rows, rows + 1, subsets=3, watch=watch), kernel_distance(rows, rows + 1, subsets=3)
    assert seen == [("kernel distance", i, 3) for i in range(3)]
    assert watched == plain
