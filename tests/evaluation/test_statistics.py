"""What follows from a set's features is computed once, whoever asks next."""

import numpy as np
import pytest
import torch

from undiffuse.evaluation import frechet, neighbours
from undiffuse.evaluation.feature_nets import pixels_net
from undiffuse.evaluation.features import Share, features_of
from undiffuse.evaluation.picture_sets import PictureSet
from undiffuse.evaluation.statistics import Side


def side(content: str, seed: int = 0) -> Side:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 4, 4, 3), np.uint8)
    nothing = np.full(12, -1)
    pictures = PictureSet(content, "all", content, (4, 4), "none", 12, nothing, (), lambda i: pixels[np.asarray(i)])
    return Side(pictures, features_of(pixels_net(), pictures, 12, Share()), torch.device("cpu"))


def test_another_comparison_finds_the_same_statistics_and_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = side("a")
    fitted, radii = first.gaussian, first.radii
    with monkeypatch.context() as patch:
        patch.setattr(frechet, "gaussian", None)
        patch.setattr(neighbours, "radii", None)
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
    files = list(first.of_pictures.folder.glob("*.npz"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:left])
    again = side("a")
    assert torch.equal(again.gaussian.factor, fitted.factor)
    assert torch.equal(again.radii.k, radii.k)
    assert all(np.load(file) for file in files)
