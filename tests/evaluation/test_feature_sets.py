"""What follows from a set's features is computed once and kept."""

import numpy as np
import pytest
import torch
from helpers.features import feature_set, random_pixels

from undiffuse.metrics import frechet, precision_recall


def test_the_next_comparison_computes_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = feature_set(random_pixels(12, seed=0))
    gaussian, radii = first.gaussian, first.radii
    with monkeypatch.context() as patch:
        patch.setattr(frechet, "gaussian", None)
        patch.setattr(precision_recall, "radii", None)
        again = feature_set(random_pixels(12, seed=0))
        assert torch.equal(again.gaussian.factor, gaussian.factor)
        assert torch.equal(again.gaussian.mean, gaussian.mean)
        for name in ("first", "k", "k_density"):
            assert torch.equal(getattr(again.radii, name), getattr(radii, name))
    other = feature_set(random_pixels(12, seed=1))
    assert not torch.equal(other.gaussian.mean, gaussian.mean)
    assert not torch.equal(other.radii.first, radii.first)


@pytest.mark.parametrize("left", [0, 50, -1])
def test_truncated_statistics_are_computed_again(left: int) -> None:
    first = feature_set(random_pixels(12, seed=0))
    gaussian, radii = first.gaussian, first.radii
    files = list(first.extracted.folder.glob("*.npz"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:left])
    again = feature_set(random_pixels(12, seed=0))
    assert torch.equal(again.gaussian.factor, gaussian.factor)
    assert torch.equal(again.radii.k, radii.k)
    assert all(np.load(file) for file in files)
