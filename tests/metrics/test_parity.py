"""The figures are those of torch-fidelity's own `calculate_metrics`, on the same two folders with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from undiffuse.features.cache import Features, Share, features_of
from undiffuse.features.image_sets import Asked, open_set
from undiffuse.metrics import frechet, scores
from undiffuse.metrics import precision_recall as neighbors

if TYPE_CHECKING:
    from undiffuse.features.networks import FeatureNet

CPU = torch.device("cpu")
KID_SUBSET = 8
Both = tuple[Features, Features]


@pytest.fixture(scope="module")
def theirs(inception_weights: Path, two_folders: tuple[Path, Path]) -> dict[str, float]:
    import torch_fidelity

    real, fake = two_folders
    return torch_fidelity.calculate_metrics(
        input1=str(fake),
        input2=str(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception_weights),
        cuda=False,
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        kid_subset_size=KID_SUBSET,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # Without worker processes, which take longer to start than to work.
    )


@pytest.fixture
def ours(inception: FeatureNet, two_folders: tuple[Path, Path]) -> Both:
    """Features of real and fake."""
    sets = [open_set(Asked(str(folder)), False) for folder in two_folders]
    real, fake = (features_of(inception, of_set, 16, Share()) for of_set in sets)
    return real, fake


def test_the_figures_are_torch_fidelitys(theirs: dict[str, float], ours: Both) -> None:
    real, fake = ours
    fid = frechet.frechet_distance(frechet.gaussian(real.features), frechet.gaussian(fake.features))
    assert fid == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    inception_score = scores.inception_score(fake.logits)
    assert inception_score is not None
    assert inception_score.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert inception_score.sd == pytest.approx(theirs["inception_score_std"], rel=1e-3)
    kid = scores.kernel_distance(real.features, fake.features, subset_size=KID_SUBSET)
    assert kid is not None
    assert kid.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert kid.sd == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)
    radii = [neighbors.radii(side.features, CPU) for side in ours]
    among = neighbors.neighborhood(real.features, fake.features, *radii, CPU)
    assert among is not None
    assert among.precision == pytest.approx(theirs["precision"], rel=1e-4)
    assert among.recall == pytest.approx(theirs["recall"], rel=1e-4)
    assert 0.1 < among.precision < 0.95, "a test at the edge would prove little"


def test_the_features_are_torch_fidelitys(
    inception: FeatureNet, inception_weights: Path, two_folders: tuple[Path, Path], ours: Both
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    plain = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_weights)
    )
    pixels = open_set(Asked(str(two_folders[0])), False).read(range(8))
    with torch.no_grad():
        features, logits = plain(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    for mine, its in ((ours[0].features[:8], features.numpy()), (ours[0].logits[:8], logits.numpy())):
        assert np.abs(mine - its).max() < 1e-4 * np.abs(its).max()
        assert np.linalg.norm(mine - its, axis=1).max() < 1e-4 * np.linalg.norm(its - its.mean(axis=0), axis=1).max()
