"""Copies of training images are found, and fresh samples are not suspected."""

import numpy as np
import pytest
import torch

from undiffuse.metrics import precision_recall as neighbors
from undiffuse.metrics.memorization import Memorization, memorization

CPU = torch.device("cpu")


def random_pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), np.uint8)


def rows(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255


def check(samples: np.ndarray, train: np.ndarray, test: np.ndarray | None = None) -> Memorization:
    """Memorization of pixels."""
    nearest = neighbors.nearest(rows(samples), rows(train), CPU)
    held_out = None if test is None else neighbors.nearest(rows(test), rows(train), CPU).distance
    return memorization(nearest, neighbors.radii(rows(train), CPU), held_out)


@pytest.mark.parametrize("with_test", [True, False])
def test_copies_are_distinguished_from_fresh_samples(with_test: bool) -> None:
    train, test = random_pixels(300, 0), random_pixels(300, 1) if with_test else None
    copies = (train[:50].astype(int) + np.random.default_rng(2).integers(-3, 4, (50, 6, 6, 3))).clip(0, 255)
    copied, fresh = check(copies.astype(np.uint8), train, test), check(random_pixels(300, 3), train, test)
    assert copied.ratio < 0.1
    assert copied.nearer_than_control == 1
    assert copied.authentic == 0
    assert copied.nearest.index.tolist() == list(range(50))
    assert 0.95 < fresh.ratio < 1.05
    assert fresh.nearer_than_control < 0.05
    assert fresh.authentic > 0.3


def test_the_control_is_the_held_out_images_if_given() -> None:
    train, far = random_pixels(100, 0) // 8, random_pixels(100, 1) // 8 + 200
    assert check(train, train, far).control.min() > 3 * check(train, train).control.max()


@pytest.mark.parametrize("times", [2, 8])
def test_a_copy_of_a_duplicated_training_image_ranks_first(times: int) -> None:
    """The next training image is no farther away than the copy: measured against it the copy would look innocent."""
    train, samples = random_pixels(100, 0), random_pixels(40, 1)
    train[77 : 77 + times] = train[77]
    samples[33] = train[77] ^ 1
    found = check(samples, train)
    assert found.suspicion.argmin() == 33
    assert found.suspicion[33] < 0.5 * found.suspicion.sort().values[1]


def test_plain_images_are_not_suspicious_for_their_similarity() -> None:
    """Plain samples are as far from plain training images as these are from each other; a real copy ranks first."""
    train, samples = random_pixels(100, 0), random_pixels(40, 1)
    train[:50], samples[:20] = 120 + train[:50] // 8, 120 + samples[:20] // 8
    samples[33] = train[77] - train[77] // 16
    assert check(samples, train).suspicion.argmin() == 33


def test_the_scale_is_the_fifth_neighbor_but_at_least_a_tenth_of_the_control() -> None:
    radii = neighbors.Radii(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]))
    nearest = neighbors.Nearest(torch.tensor([0, 1, 1]), torch.tensor([2.0, 2.0, 1.0]))
    found = memorization(nearest, radii, torch.tensor([20.0, 20.0, 60.0]))
    assert found.suspicion.tolist() == [2.0 / 2.0, 2.0 / 4.0, 1.0 / 4.0]
    assert found.ratio == pytest.approx(0.1)
    assert found.authentic == pytest.approx(1 / 3)
    assert found.nearer_than_control == 1
