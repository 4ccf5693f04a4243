"""What follows from a set's features is computed once, whoever asks next."""

import numpy as np
import pytest
import torch

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.features.cache import Share, features_of
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import pixels_net
from undiffuse.metrics import frechet
from undiffuse.metrics import precision_recall as neighbors


def side(content: str, seed: int = 0) -> FeatureSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 4, 4, 3), np.uint8)
    nothing = np.full(12, -1)
    images = ImageSet(content, "all", content, (4, 4), "none", 12, nothing, (), lambda i: pixels[np.asarray(i)])
    return FeatureSet(images, features_of(pixels_net(), images, 12, Share()), torch.device("cpu"))


def test_another_comparison_finds_the_same_statistics_and_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = side("a")
    fitted, radii = first.gaussian, first.radii
    with monkeypatch.context() as patch:
        patch.setattr(frechet, "gaussian", None)
        patch.setattr(neighbors, "radii", None)
        again = side("a")
        assert torch.equal(again.gaussian.factor, fitted.factor)
        assert torch.equal(again.gaussian.mean, fitted.mean)
        for name in ("first", "k", "k_density"):
            assert torch.equal(getattr(again.radii, name), getattr(radii, name))
    other = side("b", seed=1)
    assert not torch.equal(other.gaussian.mean, fitted.mean)
    assert not torch.equal(other.radii.first, radii.first)


@pytest.mark.parametrize("left", [0, 50, -1])
def test_statistics_that_were_cut_short_are_made_again(left: int) -> None:
    first = side("a")
    fitted, radii = first.gaussian, first.radii
    files = list(first.of_images.folder.glob("*.npz"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:left])
    again = side("a")
    assert torch.equal(again.gaussian.factor, fitted.factor)
    assert torch.equal(again.radii.k, radii.k)
    assert all(np.load(file) for file in files)
