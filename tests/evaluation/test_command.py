"""undiffuse evaluate with Inception, on weights that are not the published ones, and images that are trouble."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import making
from PIL import Image

from undiffuse.cli import main


def measured(real: str, fake: str, weights: Path) -> dict:
    """Every metric's value."""
    main(["evaluate", "--real", real, "--fake", fake, "--size", "24", "--weights", str(weights)])
    written = json.loads(Path("evaluation/metrics.json").read_text())
    return written | {"values": {figure["metric"]: figure["value"] for figure in written["metrics"]}}


def test_few_images_of_mixed_sizes_in_one_class_have_finite_figures_and_a_warning(
    tmp_path: Path, inception_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    for i in range(50):
        making.save(tmp_path / "a" / "only" / f"{i}.png", making.noise(i, 20 + i % 7, 20 + i % 5))
    for i in range(12):
        making.save(tmp_path / "b" / f"{i}.png", Image.new("RGB", (24, 24), (20 * i, 90, 200 - 10 * i)))
    there = measured("a", "b", inception_weights)
    assert "fewer than 2,048" in capsys.readouterr().out
    back, same = measured("b", "a", inception_weights), measured("a", "a", inception_weights)
    assert abs(same["values"]["FID"]) < 1e-3
    assert there["values"]["FID"] == pytest.approx(back["values"]["FID"], rel=1e-6)
    assert there["values"]["precision"] == back["values"]["recall"]
    for written in (there, back, same):
        assert set(written["values"]) >= {"FID", "KID", "Inception Score", "precision", "recall", "density", "coverage"}
        assert all(np.isfinite(value) for value in written["values"].values())
        assert written["protocol"]["feature_weights_are_the_published"] is False
        assert "are not those of the published Inception" in written["why"]
    assert "VGG16" in Path("evaluation/report.html").read_text()
