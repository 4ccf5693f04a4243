"""A model that copies is caught, one that does not is not; colors and verdicts."""

import hashlib

import numpy as np
import pytest
import torch

from undiffuse.evaluation.colors import color
from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.features.cache import Share, features_of
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import pixels_net
from undiffuse.metrics.memorization import Memorization, memorization, sheet


def draw(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), np.uint8)


def as_set(pixels: np.ndarray, content: str = "") -> ImageSet:
    return ImageSet(
        name="drawn",
        split="all",
        content=content,
        size=(6, 6),
        fit="none",
        total_images=len(pixels),
        labels=np.full(len(pixels), -1),
        class_names=(),
        read=lambda indices: pixels[np.asarray(indices)],
    )


def judged(samples: np.ndarray, train: np.ndarray, test: np.ndarray | None) -> Memorization:
    return memorization("pixels", side(train), side(samples), None if test is None else side(test))


def side(pixels: np.ndarray) -> FeatureSet:
    of_set = as_set(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())
    return FeatureSet(of_set, features_of(pixels_net(), of_set, 100, Share()), torch.device("cpu"))


@pytest.mark.parametrize("with_test", [True, False])
def test_copies_are_told_from_fresh_samples(with_test: bool) -> None:
    train, test = draw(300, 0), draw(300, 1) if with_test else None
    copies = (train[:50].astype(int) + np.random.default_rng(2).integers(-3, 4, (50, 6, 6, 3))).clip(0, 255)
    copied, fresh = judged(copies.astype(np.uint8), train, test), judged(draw(300, 3), train, test)
    assert copied.ratio < 0.1
    assert copied.nearer_than_control == 1
    assert copied.authentic == 0
    assert copied.nearest.index.tolist() == list(range(50))
    assert 0.95 < fresh.ratio < 1.05
    assert fresh.nearer_than_control < 0.05
    assert fresh.authentic > 0.3


def test_the_control_is_the_held_out_images_where_there_are_any() -> None:
    train, far = draw(100, 0) // 8, draw(100, 1) // 8 + 200
    assert judged(train, train, far).held_out.min() > 3 * judged(train, train, None).held_out.max()


def test_the_sheet_shows_the_first_samples_and_the_most_suspicious_with_their_neighbors() -> None:
    train, samples = draw(100, 0), draw(40, 1)
    samples[33] = train[77]
    found = judged(samples, train, None)
    image, shown = sheet(as_set(samples), as_set(train), [found, found])
    assert shown[:5] == [0, 1, 2, 3, 4]
    assert shown[5] == 33
    assert found.nearest.index[33] == 77
    assert image.height > 3 * 6


def test_the_colors_are_those_of_all_pixels() -> None:
    pixels = draw(70, 0)
    found = color(as_set(pixels))
    assert found.mean == pytest.approx(pixels.reshape(-1, 3).mean(axis=0))
    assert found.sd == pytest.approx(pixels.reshape(-1, 3).std(axis=0))


@pytest.mark.parametrize("times", [2, 8])
def test_a_copy_of_a_image_that_is_in_the_training_set_several_times_ranks_first(times: int) -> None:
    """The next training image is no farther than the copy: measured against that it would look innocent."""
    train, samples = draw(100, 0), draw(40, 1)
    train[77 : 77 + times] = train[77]
    samples[33] = train[77] ^ 1
    found = judged(samples, train, None)
    assert found.suspicion.argmin() == 33
    assert found.suspicion[33] < 0.5 * found.suspicion.sort().values[1]


def test_plain_images_are_not_suspicious_for_being_alike() -> None:
    """Samples lie among them as they lie among one another, and a copy of a colorful one comes before."""
    train, samples = draw(100, 0), draw(40, 1)
    train[:50], samples[:20] = 120 + train[:50] // 8, 120 + samples[:20] // 8
    samples[33] = train[77] - train[77] // 16
    assert judged(samples, train, None).suspicion.argmin() == 33
