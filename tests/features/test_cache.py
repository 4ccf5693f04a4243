"""Features are computed once, taken up where they stopped, and shared by processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import making

from undiffuse.data.store import DataConfig, cache_folder, open_store
from undiffuse.features import cache as module
from undiffuse.features.cache import Share, features_of
from undiffuse.features.image_sets import Asked, ImageSet, chosen, of_store, open_set
from undiffuse.features.networks import Extracted, FeatureNet, pixels_net


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION", 4)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    making.save_noise(tmp_path / "photos", *(f"{i}.png" for i in range(10)))
    return open_set(Asked(str(tmp_path / "photos")), False)


def counting(seen: list[int], stop_after: int | None = None) -> FeatureNet:
    """Records how many images it was shown; fails after some."""
    net = pixels_net()

    def extract(pixels: torch.Tensor):
        if stop_after is not None and sum(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return net.extract(pixels)

    return replace(net, extract=extract)


def test_features_are_computed_once(images: ImageSet) -> None:
    seen: list[int] = []
    first = features_of(counting(seen), images, 3, Share())
    again = features_of(counting(seen), images, 5, Share())
    assert sum(seen) == 10
    assert (first.cached, again.cached) == (False, True)
    expected = images.read(range(10)).transpose(0, 3, 1, 2).reshape(10, -1) / 255
    assert np.abs(first.features - expected).max() < 1e-6
    assert np.array_equal(first.features, again.features)


def test_other_images_sizes_fits_and_networks_have_other_features(images: ImageSet) -> None:
    seen: list[int] = []
    features_of(counting(seen), images, 10, Share())
    for other in (
        replace(images, content="others"),
        replace(images, size=(8, 8)),
        replace(images, fit="stretch"),
        chosen(images, 9, 0),
    ):
        assert not features_of(counting(seen), other, 10, Share()).cached
    assert not features_of(replace(counting(seen), weights_sha256="other"), images, 10, Share()).cached


def test_a_changed_file_invalidates(images: ImageSet, tmp_path: Path) -> None:
    features_of(pixels_net(), images, 10, Share())
    making.save(tmp_path / "photos" / "3.png", making.noise(99))
    changed = features_of(pixels_net(), open_set(Asked(str(tmp_path / "photos")), False, lambda s: None), 10, Share())
    assert not changed.cached


def test_work_that_was_stopped_goes_on(images: ImageSet) -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        features_of(counting(seen, stop_after=8), images, 2, Share())
    resumed: list[int] = []
    found = features_of(counting(resumed), images, 2, Share())
    assert sum(resumed) == 2  # Two whole portions of four were kept.
    assert found.features.shape == (10, 768)
    assert not list(cache_folder().rglob("portion-*"))


def test_processes_share_the_work(images: ImageSet) -> None:
    """Two processes, of which the second is played when the first waits."""
    shares: dict[int, list[int]] = {0: [], 1: []}
    waits = []

    def other_works() -> None:
        waits.append(None)
        if len(waits) == 3:  # The first has done its part.
            module._compute(counting(shares[1]), images, 4, Share(1, 2), folder(images))

    found = features_of(counting(shares[0]), images, 4, Share(0, 2, other_works))
    assert {rank: sum(seen) for rank, seen in shares.items()} == {0: 6, 1: 4}
    alone = features_of(replace(pixels_net(), name="alone"), images, 4, Share())
    assert np.array_equal(found.features, alone.features)


def folder(images: ImageSet) -> Path:
    return next(path for path in cache_folder().glob("features-*") if path.is_dir())


def test_other_channels_have_other_features(images: ImageSet, tmp_path: Path) -> None:
    """A run in gray and one in color on the same folder, one after the other."""

    def decoded(channels: int) -> ImageSet:
        config = DataConfig(str(tmp_path / "photos"), size=(16, 16), channels=channels)
        return of_store(open_store(config), config)

    color, gray = (features_of(pixels_net(), decoded(channels), 10, Share()) for channels in (3, 1))
    assert not gray.cached
    red, green = (gray.features.reshape(10, 3, -1)[:, i] for i in (0, 1))
    assert np.array_equal(red, green)
    assert not np.array_equal(color.features, gray.features)


@pytest.mark.parametrize("name", ["features.npy", "logits.npy"])
@pytest.mark.parametrize("left", [None, 0, 60, -1])
def test_files_that_were_cut_short_are_made_again(images: ImageSet, name: str, left: int | None) -> None:
    net = replace(pixels_net(), extract=lambda pixels: Extracted(*2 * [pixels.flatten(1).float()]))
    first = features_of(net, images, 10, Share())
    expected, file = np.array(first.features), first.folder / name
    cut(file, left)
    (first.folder / "gaussian.npz").write_bytes(b"of the features before")
    again = features_of(net, images, 10, Share())
    assert not again.cached
    assert np.array_equal(again.features, expected)
    assert np.array_equal(again.logits, expected)
    assert not (first.folder / "gaussian.npz").exists()
    assert features_of(net, images, 10, Share()).cached


def test_features_of_another_number_of_images_are_not_taken(images: ImageSet) -> None:
    features_of(pixels_net(), images, 10, Share())
    found = features_of(pixels_net(), replace(images, total_images=9), 10, Share())
    assert len(found.features) == 9


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_portion_that_was_cut_short_is_made_again(images: ImageSet, left: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        features_of(counting([], stop_after=8), images, 2, Share())
    cut(next(iter(cache_folder().rglob("portion-*"))), left)
    resumed: list[int] = []
    found = features_of(counting(resumed), images, 2, Share())
    assert sum(resumed) == 6  # One portion of four, and the last two.
    expected = images.read(range(10)).transpose(0, 3, 1, 2).reshape(10, -1) / 255
    assert np.abs(found.features - expected).max() < 1e-6


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_weights(images: ImageSet, wrong: float) -> None:
    def extract(pixels: torch.Tensor) -> Extracted:
        return Extracted(torch.full((len(pixels), 4), wrong), torch.empty(len(pixels), 0))

    net = replace(pixels_net(), weights="odd.pth", extract=extract)
    with pytest.raises(ValueError, match=r"odd\.pth make features that are not finite.*--weights"):
        features_of(net, images, 10, Share())
    assert not list(cache_folder().rglob("portion-*"))


def cut(file: Path, left: int | None) -> None:
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])
