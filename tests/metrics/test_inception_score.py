"""The Inception Score where it is known."""

import numpy as np
import pytest

from undiffuse.metrics.inception_score import inception_score

CERTAIN = np.tile(100 * np.eye(5, dtype=np.float32), (400, 1))
"""Logits of 2,000 images, each certain of one of five classes."""


def test_certain_diverse_predictions_score_the_number_of_classes() -> None:
    found = inception_score(CERTAIN)
    assert found is not None
    assert found.mean == pytest.approx(5, rel=0.02)


def test_identical_predictions_score_one() -> None:
    found = inception_score(np.ones((50, 5), np.float32))
    assert found is not None
    assert found.mean == pytest.approx(1)


def test_fewer_images_than_splits_have_no_inception_score() -> None:
    assert inception_score(CERTAIN[:9]) is None
