"""An evaluation with Inception, of few images of several sizes in one class."""

from pathlib import Path

import numpy as np
import pytest
from helpers import making
from PIL import Image

import undiffuse as ud


@pytest.fixture
def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    for i in range(24):
        making.save(tmp_path / "a" / "only" / f"{i}.png", making.noise(i, 20 + i % 7, 20 + i % 5))
    for i in range(12):
        making.save(tmp_path / "b" / f"{i}.png", Image.new("RGB", (24, 24), (20 * i, 90, 200 - 10 * i)))
    return tmp_path / "a", tmp_path / "b"


def test_inceptions_metrics_are_finite_and_symmetric(inception_weights: Path, two_folders: tuple[Path, Path]) -> None:
    a, b = two_folders
    there, back, same = (ud.measure(*pair, size=24, weights=inception_weights) for pair in ((a, b), (b, a), (a, a)))
    assert abs(same["FID"].value) < 1e-3
    assert there["FID"].value == pytest.approx(back["FID"].value, rel=1e-6)
    assert there["precision"].value == back["recall"].value
    expected = {"FID", "KID", "Inception Score", "precision", "recall", "density", "coverage"}
    for evaluation in (there, back, same):
        assert {value.metric for value in evaluation.metrics} >= expected
        assert all(np.isfinite(value.value) for value in evaluation.metrics)
        assert "fewer than 2,048" in evaluation.warnings[0]
        assert "are not those of the published Inception" in evaluation.why
        assert evaluation.to_dict()["protocol"]["feature_weights_are_the_published"] is False
    # Precision by Inception's features is not that of the paper, and the page says so.
    assert "VGG16" in there.write("out").read_text()
