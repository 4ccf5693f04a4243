"""Metrics equal those of torch-fidelity's `calculate_metrics` on the same two folders with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.features import blobs

from undiffuse.data.pixels import to_nchw
from undiffuse.features.cache import Features, features_of
from undiffuse.features.image_sets import DataSpec, open_set
from undiffuse.metrics import frechet
from undiffuse.metrics import precision_recall as neighbors
from undiffuse.metrics.inception_score import inception_score
from undiffuse.metrics.kernel import kernel_distance
from undiffuse.utils.world import World

if TYPE_CHECKING:
    from undiffuse.features.networks import FeatureNetwork

CPU = torch.device("cpu")
KID_SUBSET = 8
RealAndFake = tuple[Features, Features]


@pytest.fixture(scope="module")
def two_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """14 real and 18 generated images from two distributions: smooth blobs, brighter in the second."""
    folder = tmp_path_factory.mktemp("images")
    return blobs(folder / "real", 14, 0, 90), blobs(folder / "fake", 18, 1, 130)


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


@pytest.fixture(scope="module")
def ours(
    inception: FeatureNetwork, two_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> RealAndFake:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        sets = [open_set(DataSpec(str(folder))) for folder in two_folders]
        real, fake = (features_of(inception, images, 16, World.alone(CPU)) for images in sets)
    return real, fake


def test_fid_is_torch_fidelitys(theirs: dict[str, float], ours: RealAndFake) -> None:
    real, fake = (frechet.gaussian(each.features) for each in ours)
    expected = theirs["frechet_inception_distance"]
    assert frechet.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-4)


def test_the_inception_score_is_torch_fidelitys(theirs: dict[str, float], ours: RealAndFake) -> None:
    found = inception_score(ours[1].logits)
    assert found is not None
    assert found.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert found.sd == pytest.approx(theirs["inception_score_std"], rel=1e-3)


def test_kid_is_torch_fidelitys(theirs: dict[str, float], ours: RealAndFake) -> None:
    real, fake = ours
    found = kernel_distance(real.features, fake.features, subset_size=KID_SUBSET)
    assert found is not None
    assert found.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert found.sd == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)


def test_precision_and_recall_are_torch_fidelitys(theirs: dict[str, float], ours: RealAndFake) -> None:
    real, fake = ours
    real_radii, fake_radii = (neighbors.radii(each.features, CPU) for each in ours)
    found = neighbors.neighborhood(real.features, fake.features, real_radii, fake_radii, CPU)
    assert found is not None
    assert found.precision == pytest.approx(theirs["precision"], rel=1e-4)
    assert found.recall == pytest.approx(theirs["recall"], rel=1e-4)
    assert 0.1 < found.precision < 0.95, "a test at the edge would prove little"


def test_features_and_logits_are_torch_fidelitys(
    inception_weights: Path, two_folders: tuple[Path, Path], ours: RealAndFake
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_weights)
    )
    pixels = open_set(DataSpec(str(two_folders[0]))).read(range(8))
    with torch.no_grad():
        features, logits = network(to_nchw(pixels))
    for found, expected in ((ours[0].features[:8], features.numpy()), (ours[0].logits[:8], logits.numpy())):
        error, spread = found - expected, expected - expected.mean(axis=0)
        assert np.abs(error).max() < 1e-4 * np.abs(expected).max()
        assert np.linalg.norm(error, axis=1).max() < 1e-4 * np.linalg.norm(spread, axis=1).max()
