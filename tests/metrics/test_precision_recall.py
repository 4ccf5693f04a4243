"""Precision, recall, density, coverage and AuthPct on sets whose answer is known."""

import numpy as np
import pytest
import torch

from undiffuse.metrics import precision_recall as neighbors
from undiffuse.metrics.precision_recall import Neighborhood

CPU = torch.device("cpu")


def among(real: np.ndarray, fake: np.ndarray) -> Neighborhood:
    found = neighbors.neighborhood(real, fake, neighbors.radii(real, CPU), neighbors.radii(fake, CPU), CPU)
    assert found is not None
    return found


def cloud(n: int, at: float, seed: int, d: int = 4) -> np.ndarray:
    center = np.zeros(d)
    center[0] = at
    return (center + np.random.default_rng(seed).normal(size=(n, d))).astype(np.float32)


def test_half_of_the_fakes_elsewhere_halves_precision_and_half_of_the_modes_halves_recall() -> None:
    real = np.concatenate([cloud(60, 0, 0), cloud(60, 1000, 1)])
    fake = np.concatenate([real[:30], cloud(30, -1000, 2)])
    found = among(real, fake)
    assert found.precision == 0.5
    assert found.recall == pytest.approx(0.5, abs=0.06)  # All of the first mode, but its edge.
    assert found.coverage <= 0.5
    swapped = among(fake, real)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


def test_the_definitions_written_out() -> None:
    real, fake = cloud(40, 0, 0), cloud(30, 1, 1)
    apart = np.linalg.norm(fake[:, None] - real[None], axis=2)
    own = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)
    its = np.sort(np.linalg.norm(fake[:, None] - fake[None], axis=2), axis=1)
    found = among(real, fake)
    assert found.precision == pytest.approx((apart <= own[:, 3]).any(axis=1).mean())
    assert found.recall == pytest.approx((apart <= its[:, 3, None]).any(axis=0).mean())
    assert found.density == pytest.approx((apart < own[:, 5]).sum() / (5 * len(fake)))
    assert found.coverage == pytest.approx((apart < own[:, 5]).any(axis=0).mean())
    nearest = apart.argmin(axis=1)
    assert found.nearest.index.tolist() == nearest.tolist()
    assert found.authentic == pytest.approx((apart.min(axis=1) > own[nearest, 1]).mean())


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = cloud(45, 0, 0), cloud(37, 0.5, 1)
    whole, whole_radii = among(real, fake), neighbors.radii(real, CPU)
    monkeypatch.setattr(neighbors, "BLOCK", 7)
    parts, radii = among(real, fake), neighbors.radii(real, CPU)
    torch.testing.assert_close(radii.k_density, whole_radii.k_density)
    torch.testing.assert_close(radii.first, whole_radii.first)
    assert parts.nearest.index.tolist() == whole.nearest.index.tolist()
    for name in ("precision", "recall", "density", "coverage", "authentic"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))


def test_copies_are_not_authentic_and_fresh_samples_mostly_are() -> None:
    real = cloud(200, 0, 0, d=16)
    assert among(real, real[:50] + 1e-3).authentic == 0
    assert among(real, cloud(200, 0, 1, d=16)).authentic > 0.4


def test_too_few_images_have_no_neighborhood() -> None:
    few = cloud(5, 0, 0)
    radii = neighbors.radii(few, CPU)
    assert torch.isinf(radii.k_density).all()
    assert neighbors.neighborhood(few, few, radii, radii, CPU) is None
