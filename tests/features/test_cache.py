"""Features are computed once, resumed after an interruption, and divided among processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers import making

from undiffuse.data.store import DataConfig, cache_folder, open_store
from undiffuse.features import cache
from undiffuse.features.cache import features_of
from undiffuse.features.image_sets import DataSpec, ImageSet, of_store, open_set, subset
from undiffuse.features.networks import Extracted, FeatureNetwork, pixels_network
from undiffuse.utils.world import World

ALONE = World.alone(torch.device("cpu"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK", 4)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    making.save_noise(tmp_path / "photos", *(f"{i}.png" for i in range(10)))
    return open_set(DataSpec(str(tmp_path / "photos")))


def counting(seen: list[int], stop_after: int | None = None) -> FeatureNetwork:
    """Pixels; records the size of each batch, and is interrupted after so many images."""
    network = pixels_network()

    def extract(pixels: torch.Tensor):
        if stop_after is not None and sum(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return network.extract(pixels)

    return replace(network, extract=extract)


def flat(images: ImageSet) -> np.ndarray:
    """What `pixels` makes of small images."""
    return images.read(range(len(images))).transpose(0, 3, 1, 2).reshape(len(images), -1) / 255


def test_features_are_computed_once(images: ImageSet) -> None:
    seen: list[int] = []
    first = features_of(counting(seen), images, 3, ALONE)
    again = features_of(counting(seen), images, 5, ALONE)
    assert sum(seen) == 10
    assert (first.cached, again.cached) == (False, True)
    assert np.abs(first.features - flat(images)).max() < 1e-6
    assert np.array_equal(first.features, again.features)


def test_other_images_sizes_fits_and_weights_are_not_confused(images: ImageSet) -> None:
    seen: list[int] = []
    features_of(counting(seen), images, 10, ALONE)
    for other in (
        replace(images, content="others"),
        replace(images, size=(8, 8)),
        replace(images, fit="stretch"),
        subset(images, 9, 0),
    ):
        assert not features_of(counting(seen), other, 10, ALONE).cached
    assert not features_of(replace(counting(seen), weights_sha256="other"), images, 10, ALONE).cached


def test_a_changed_file_changes_the_features(images: ImageSet, tmp_path: Path) -> None:
    features_of(pixels_network(), images, 10, ALONE)
    making.save(tmp_path / "photos" / "3.png", making.noise(99))
    assert not features_of(pixels_network(), open_set(DataSpec(str(tmp_path / "photos"))), 10, ALONE).cached


def test_interrupted_work_is_resumed(images: ImageSet) -> None:
    with pytest.raises(KeyboardInterrupt):
        features_of(counting([], stop_after=8), images, 2, ALONE)
    resumed: list[int] = []
    found = features_of(counting(resumed), images, 2, ALONE)
    assert sum(resumed) == 2  # Two whole chunks of four were kept.
    assert found.features.shape == (10, 768)
    assert not list(cache_folder().rglob("chunk-*"))


@dataclass(frozen=True)
class OneOfTwo(World):
    """A process that waits for another one, whose work is done while it waits."""

    others_work: Callable[[], None] = print

    def barrier(self) -> None:
        self.others_work()

    def share(self, value: Any) -> Any:
        return value


def test_processes_share_the_work(images: ImageSet) -> None:
    seen: dict[int, list[int]] = {0: [], 1: []}
    waits = []

    def others_work() -> None:
        waits.append(None)
        if len(waits) == 1:  # The first process has computed its chunks.
            folder = next(path for path in cache_folder().glob("features-*") if path.is_dir())
            cache._compute(counting(seen[1]), images, 4, World(1, 2, ALONE.device), folder)

    found = features_of(counting(seen[0]), images, 4, OneOfTwo(0, 2, ALONE.device, others_work=others_work))
    assert {rank: sum(batches) for rank, batches in seen.items()} == {0: 6, 1: 4}
    alone = features_of(replace(pixels_network(), resize="alone"), images, 4, ALONE)
    assert np.array_equal(found.features, alone.features)


def test_gray_and_color_images_are_not_confused(tmp_path: Path) -> None:
    """A run in gray and one in color on the same folder, one after the other."""
    making.save_noise(tmp_path / "photos", *(f"{i}.png" for i in range(10)))

    def decoded(channels: Literal[1, 3]) -> ImageSet:
        config = DataConfig(str(tmp_path / "photos"), size=(16, 16), channels=channels)
        return of_store(open_store(config), config)

    color, gray = (features_of(pixels_network(), images, 10, ALONE) for images in (decoded(3), decoded(1)))
    assert not gray.cached
    red, green = (gray.features.reshape(10, 3, -1)[:, i] for i in (0, 1))
    assert np.array_equal(red, green)
    assert not np.array_equal(color.features, gray.features)


def cut(file: Path, left: int | None) -> None:
    """Leaves the first bytes of the file, or removes it."""
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])


@pytest.mark.parametrize("name", ["features.npy", "logits.npy"])
@pytest.mark.parametrize("left", [None, 0, 60, -1])
def test_truncated_features_are_computed_again(images: ImageSet, name: str, left: int | None) -> None:
    network = replace(pixels_network(), extract=lambda pixels: Extracted(*2 * [pixels.flatten(1).float()]))
    first = features_of(network, images, 10, ALONE)
    expected, file = np.array(first.features), first.folder / name
    cut(file, left)
    (first.folder / "gaussian.npz").write_bytes(b"of the old features")
    again = features_of(network, images, 10, ALONE)
    assert not again.cached
    assert np.array_equal(again.features, expected)
    assert np.array_equal(again.logits, expected)
    assert not (first.folder / "gaussian.npz").exists()
    assert features_of(network, images, 10, ALONE).cached


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_truncated_chunk_is_computed_again(images: ImageSet, left: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        features_of(counting([], stop_after=8), images, 2, ALONE)
    cut(next(iter(cache_folder().rglob("chunk-*"))), left)
    resumed: list[int] = []
    found = features_of(counting(resumed), images, 2, ALONE)
    assert sum(resumed) == 6  # One chunk of four, and the last two images.
    assert np.abs(found.features - flat(images)).max() < 1e-6


def test_long_work_is_announced_once_with_a_way_around(images: ImageSet, monkeypatch, notices) -> None:
    monkeypatch.setattr(cache, "LONG_SECONDS", 0)
    features_of(pixels_network(), images, 2, ALONE, "--real-count 5 needs fewer.")
    announced = [
        message for message in notices.messages if "pixels features of photos, split all, 10 images" in message
    ]
    assert len(announced) == 1
    assert "only once. --real-count 5 needs fewer." in announced[0]
    features_of(pixels_network(), images, 2, ALONE, "--real-count 5 needs fewer.")
    assert len([message for message in notices.messages if "pixels features" in message]) == 1


def test_quick_work_is_not_announced(images: ImageSet, notices) -> None:
    features_of(pixels_network(), images, 2, ALONE, "--real-count 5 needs fewer.")
    assert notices.messages == []


def test_features_of_a_different_number_of_images_are_not_used(images: ImageSet) -> None:
    features_of(pixels_network(), images, 10, ALONE)
    found = features_of(pixels_network(), replace(images, total_images=9), 10, ALONE)
    assert len(found.features) == 9


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_weights(images: ImageSet, wrong: float) -> None:
    def extract(pixels: torch.Tensor) -> Extracted:
        return Extracted(torch.full((len(pixels), 4), wrong), torch.empty(len(pixels), 0))

    network = replace(pixels_network(), weights="odd.pth", extract=extract)
    with pytest.raises(ValueError, match=r"odd\.pth returns features that are not finite.*--weights"):
        features_of(network, images, 10, ALONE)
    assert not list(cache_folder().rglob("chunk-*"))


def test_processes_with_caches_of_their_own_are_told_so(images: ImageSet) -> None:
    with pytest.raises(ValueError, match="do not see the same cache: set UNDIFFUSE_CACHE to a folder that all"):
        features_of(pixels_network(), images, 4, OneOfTwo(0, 2, ALONE.device, others_work=lambda: None))
