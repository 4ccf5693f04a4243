"""Precision, recall, density, coverage and AuthPct of sets whose answer is known."""

import numpy as np
import pytest
import torch

from undiffuse.metrics import precision_recall as neighbors
from undiffuse.metrics.precision_recall import Neighborhood

CPU = torch.device("cpu")


def compare(real: np.ndarray, fake: np.ndarray) -> Neighborhood:
    found = neighbors.neighborhood(real, fake, neighbors.radii(real, CPU), neighbors.radii(fake, CPU), CPU)
    assert found is not None
    return found


def cloud(n: int, center: float, seed: int, d: int = 4) -> np.ndarray:
    """Gaussian rows around `center` on the first axis."""
    mean = np.zeros(d)
    mean[0] = center
    return (mean + np.random.default_rng(seed).normal(size=(n, d))).astype(np.float32)


def test_stray_fakes_halve_precision_missed_modes_halve_recall() -> None:
    real = np.concatenate([cloud(60, 0, 0), cloud(60, 1000, 1)])
    fake = np.concatenate([real[:30], cloud(30, -1000, 2)])
    found = compare(real, fake)
    assert found.precision == 0.5
    assert found.recall == pytest.approx(0.5, abs=0.06)  # The whole first mode except its edge.
    assert found.coverage <= 0.5
    swapped = compare(fake, real)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


def test_the_values_are_their_definitions_written_out() -> None:
    real, fake = cloud(40, 0, 0), cloud(30, 1, 1)
    distances = np.linalg.norm(fake[:, None] - real[None], axis=2)
    in_real = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)
    in_fake = np.sort(np.linalg.norm(fake[:, None] - fake[None], axis=2), axis=1)
    found = compare(real, fake)
    assert found.precision == pytest.approx((distances <= in_real[:, 3]).any(axis=1).mean())
    assert found.recall == pytest.approx((distances <= in_fake[:, 3, None]).any(axis=0).mean())
    assert found.density == pytest.approx((distances < in_real[:, 5]).sum() / (5 * len(fake)))
    assert found.coverage == pytest.approx((distances < in_real[:, 5]).any(axis=0).mean())
    nearest = distances.argmin(axis=1)
    assert found.nearest.index.tolist() == nearest.tolist()
    assert found.authentic == pytest.approx((distances.min(axis=1) > in_real[nearest, 1]).mean())


def test_the_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = cloud(45, 0, 0), cloud(37, 0.5, 1)
    whole, whole_radii = compare(real, fake), neighbors.radii(real, CPU)
    monkeypatch.setattr(neighbors, "BLOCK", 7)
    blocks, radii = compare(real, fake), neighbors.radii(real, CPU)
    torch.testing.assert_close(radii.k_density, whole_radii.k_density)
    torch.testing.assert_close(radii.first, whole_radii.first)
    assert blocks.nearest.index.tolist() == whole.nearest.index.tolist()
    for name in ("precision", "recall", "density", "coverage", "authentic"):
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name))


def test_copies_are_not_authentic_and_fresh_samples_mostly_are() -> None:
    real = cloud(200, 0, 0, d=16)
    assert compare(real, real[:50] + 1e-3).authentic == 0
    assert compare(real, cloud(200, 0, 1, d=16)).authentic > 0.4


def test_too_few_images_have_no_neighborhood() -> None:
    few = cloud(5, 0, 0)
    radii = neighbors.radii(few, CPU)
    assert torch.isinf(radii.k_density).all()
    assert neighbors.neighborhood(few, few, radii, radii, CPU) is None


def column(*values: float) -> np.ndarray:
    """Rows of one number."""
    return np.array(values, np.float32)[:, None]


ROW, STRAYS = (0, 1, 2, 3, 4, 5), (-1000, -2000, -3000, -4000, -5000, -6000)
"""The 3rd neighbor of 0 is 3 away, the 5th is 5; strays are near nothing."""


@pytest.mark.parametrize(("at", "is_precise", "balls"), [(-3, True, 1), (-3.5, False, 1), (-5, False, 0)])
def test_ties_count_for_precision_and_recall_but_not_for_density_and_coverage(
    at: float, is_precise: bool, balls: int
) -> None:
    """A ball of precision is closed (Kynkaanniemi et al. 2019, Eq. 1), one of density open (Naeem et al., released)."""
    real, fake = column(*ROW), column(at, *STRAYS)
    found = compare(real, fake)
    assert found.is_precise.tolist() == [is_precise] + 6 * [False]
    assert found.density == pytest.approx(balls / 5 / 7)
    assert found.coverage == pytest.approx(balls / 6)
    assert compare(fake, real).recall == found.precision


def test_an_image_as_far_as_the_next_one_is_not_authentic() -> None:
    found = compare(column(*ROW), column(-1, -1.5, 10, 11, 12, 13, 14))
    assert found.authentic == pytest.approx(6 / 7)


def test_the_error_of_the_density_is_that_of_a_mean() -> None:
    real, fake = cloud(40, 0, 0), cloud(30, 1, 1)
    distances = np.linalg.norm(fake[:, None] - real[None], axis=2)
    radii = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, 5]
    by_fake = (distances < radii).sum(axis=1) / 5
    assert compare(real, fake).density_error == pytest.approx(by_fake.std(ddof=1) / 30**0.5)
