"""Duplicates are found, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
from helpers.exploring import found_duplicates, names_of, smooth
from helpers.making import noise, opened, save
from PIL import Image, ImageEnhance

from undiffuse.exploration import duplicates
from undiffuse.exploration.duplicates import find_duplicates
from undiffuse.exploration.named_duplicates import example_pairs, name_duplicates
from undiffuse.exploration.scan import Scan, scan


def photos(folder: Path, count: int = 40) -> Path:
    for i in range(count):
        save(folder / f"{i:03}.png", smooth(i, 96, 96))
    return folder


def test_no_duplicates_are_found_among_distinct_images(tmp_path: Path) -> None:
    found, _ = found_duplicates(photos(tmp_path / "p"))
    assert (found.exact, found.near, found.groups) == ((), (), ())
    assert found.complete


def test_equal_pixels_are_found_in_any_file_format(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p")
    save(folder / "copy.png", smooth(7, 96, 96))
    save(folder / "another.bmp", smooth(7, 96, 96))
    save(folder / "other.png", smooth(3, 96, 96), compress_level=1)
    found, names = found_duplicates(folder)
    assert [[names[i] for i in group] for group in found.exact] == [
        ["003.png", "other.png"],
        ["007.png", "another.bmp", "copy.png"],
    ]
    assert found.near == ()
    assert [len(group) for group in found.groups] == [3, 2]


def test_slightly_changed_copies_are_found_and_no_others(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p")
    save(folder / "compressed.jpg", smooth(1, 96, 96), quality=40)
    save(folder / "small.png", smooth(2, 96, 96).resize((70, 70)))
    save(folder / "brighter.png", ImageEnhance.Brightness(smooth(3, 96, 96)).enhance(1.15))
    save(folder / "gray.png", smooth(4, 96, 96).convert("L").convert("RGB"))
    save(folder / "cut.png", smooth(5, 96, 96).crop((1, 1, 95, 95)))
    save(folder / "mirrored.png", smooth(6, 96, 96).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    found, names = found_duplicates(folder)
    assert found.exact == ()
    assert names_of(found.near, names) == {
        frozenset(pair)
        for pair in (
            ("001.png", "compressed.jpg"),
            ("002.png", "small.png"),
            ("003.png", "brighter.png"),
            ("004.png", "gray.png"),
            ("005.png", "cut.png"),
        )
    }
    assert [pair.similarity for pair in found.near] == sorted((pair.similarity for pair in found.near), reverse=True)


def test_the_threshold_is_higher_among_similar_images(tmp_path: Path) -> None:
    base = np.asarray(smooth(0, 64, 64), dtype=float)
    for i in range(30):  # A common scene with something different in each image.
        extra = np.asarray(smooth(i + 1, 64, 64), dtype=float)
        save(tmp_path / "p" / f"{i}.png", Image.fromarray((0.8 * base + 0.2 * extra).astype(np.uint8)))
    found, _ = found_duplicates(tmp_path / "p")
    assert found.median_similarity > 0.95
    assert found.threshold == pytest.approx(min(1 - (1 - found.median_similarity) / 4, 0.995))
    assert found.near == ()


def scanned(correlation: float, bits: int = 0, unlike: int = 10) -> Scan:
    """Two images whose thumbnails correlate so much and whose hashes differ in so many bits, and others unlike all."""
    thumbnails = np.eye(64, dtype=np.float32)[: 2 + unlike]
    thumbnails[1, :2] = correlation, (1 - correlation**2) ** 0.5
    hashes = np.array([2**64 - 1 - (2**bits - 1) * (i == 1) for i in range(2 + unlike)], np.uint64)
    digests = np.arange(2 + unlike, dtype=np.uint64)
    return Scan(np.zeros((1, 256), np.int64), np.zeros((8, 8, 1)), digests, hashes, thumbnails)


@pytest.mark.parametrize(("correlation", "bits", "found"), [(0.91, 8, 1), (0.91, 9, 0), (0.89, 0, 0)])
def test_near_duplicates_differ_in_8_bits_at_most_and_correlate_by_9_tenths(
    correlation: float, bits: int, found: int
) -> None:
    duplicates = find_duplicates(scanned(correlation, bits))
    assert duplicates.threshold == 0.9  # The median image resembles none: this is the least.
    assert [(pair.first, pair.second, pair.hamming_distance) for pair in duplicates.near] == [(0, 1, bits)] * found


@pytest.mark.parametrize(("correlation", "threshold"), [(0.5, 0.9), (0.8, 0.95), (0.99, 0.995)])
def test_the_threshold_is_half_as_far_as_the_median_neighbor_within_limits(
    correlation: float, threshold: float
) -> None:
    found = find_duplicates(scanned(correlation, unlike=0))
    assert found.median_similarity == pytest.approx(correlation, abs=1e-6)
    assert found.threshold == pytest.approx(threshold, abs=1e-6)


def test_digits_that_resemble_each_other_are_not_duplicates() -> None:
    found, _ = found_duplicates(Path("digits"), size=(16, 16))
    assert found.exact == ()
    assert len(found.near) < 10  # Of 1.6 million pairs; 7,137 correlate by over 0.93.


def random_scan(n: int) -> Scan:
    """Thumbnails around a few centers, some very close, with hashes that differ in few bits: there are many pairs."""
    random = np.random.default_rng(0)
    spread = np.where(random.random((n, 1)) < 0.4, 0.02, 0.3)
    thumbnails = random.normal(size=(10, 64))[random.integers(0, 10, n)] + spread * random.normal(size=(n, 64))
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    hashes = random.integers(0, 2**12, n).astype(np.uint64)
    digests = np.arange(n, dtype=np.uint64)
    return Scan(np.zeros((3, 256), np.int64), np.zeros((8, 8, 3)), digests, hashes, thumbnails.astype(np.float32))


def test_every_pair_is_compared_for_any_block_size(monkeypatch) -> None:
    n = 150
    scanned = random_scan(n)
    monkeypatch.setattr(duplicates, "ROWS", 32)
    monkeypatch.setattr(duplicates, "COLUMNS", 48)
    found = find_duplicates(scanned)
    similarity = scanned.thumbnails @ scanned.thumbnails.T
    bits = np.array([[int(a ^ b).bit_count() for b in scanned.hashes] for a in scanned.hashes])
    nearest = np.median((similarity - 2 * np.eye(n)).max(axis=1))
    # torch takes the lower of the two middle values.
    assert found.median_similarity == pytest.approx(float(nearest), abs=0.02)
    first, second = np.nonzero(np.triu((similarity >= found.threshold) & (bits <= duplicates.MAX_HAMMING), 1))
    assert len(first) > 100
    assert {(pair.first, pair.second) for pair in found.near} == set(zip(first.tolist(), second.tolist(), strict=True))
    for pair in found.near:
        assert pair.similarity == pytest.approx(similarity[pair.first, pair.second], abs=1e-5)
        assert pair.hamming_distance == bits[pair.first, pair.second]


def test_groups_are_connected_through_any_pair() -> None:
    scanned = random_scan(150)
    found = find_duplicates(scanned)
    neighbors = {i: {i} for i in range(150)}
    for _ in range(150):
        for pair in found.near:
            both = neighbors[pair.first] | neighbors[pair.second]
            for i in both:
                neighbors[i] = both
    expected = {frozenset(group) for group in neighbors.values() if len(group) > 1}
    assert {frozenset(group) for group in found.groups} == expected
    assert [len(group) for group in found.groups] == sorted(map(len, found.groups), reverse=True)


def test_the_search_stops_at_its_limit(monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 20)
    found = find_duplicates(random_scan(150))
    assert len(found.near) == 20
    assert not found.complete


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_images_are_enough(tmp_path: Path, count: int) -> None:
    found, _ = found_duplicates(photos(tmp_path / "p", count))
    assert found.near == ()


def test_flat_images_are_compared_by_their_pixels_only(tmp_path: Path) -> None:
    for i, color in enumerate(("white", "white", "black", "gray", "red")):
        save(tmp_path / "p" / f"{i}.png", Image.new("RGB", (16, 16), color))
    found, names = found_duplicates(tmp_path / "p")
    assert [[names[i] for i in group] for group in found.exact] == [["0.png", "1.png"]]
    assert found.near == ()


def test_duplicates_across_splits_and_classes_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    for i in range(30):
        save(folder / ("train", "val", "test")[i % 3] / ("a", "b")[i % 2] / f"{i}.png", smooth(i, 96, 96))
    save(folder / "test" / "a" / "same.png", smooth(0, 96, 96))  # In train, a.
    save(folder / "test" / "b" / "same again.png", smooth(0, 96, 96))  # The third of them, of the other class.
    save(folder / "val" / "b" / "close.jpg", smooth(3, 96, 96), quality=50)  # In train, b.
    save(folder / "val" / "a" / "near.jpg", smooth(2, 96, 96), quality=50)  # In test, a.
    store = opened(folder, split="all")
    found = find_duplicates(scan(store))
    named = name_duplicates(store, found, ("train", "val", "test"))
    assert named.redundant == 2
    (group,) = named.exact_groups
    assert [(image.name, image.split, image.class_name) for image in group] == [
        ("test/a/same.png", "test", "a"),
        ("test/b/same again.png", "test", "b"),
        ("train/a/0.png", "train", "a"),
    ]
    assert {frozenset(image.name for image in pair.images) for pair in named.near_pairs} == {
        frozenset(("train/b/3.png", "val/b/close.jpg")),
        frozenset(("test/a/2.png", "val/a/near.jpg")),
    }
    assert named.shared_with_train == {"val": 1, "test": 2}
    assert (named.groups, named.largest_group, named.mixed_class_groups) == (3, 3, 1)


def test_the_surest_and_least_certain_pairs_are_shown(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", 8)
    for i, quality in enumerate((90, 70, 50, 30)):
        save(folder / f"{i:03}.jpg", smooth(i, 96, 96), quality=quality)
        save(folder / f"{i:03} again.jpg", smooth(i, 96, 96), quality=quality)
    store = opened(folder)
    found = find_duplicates(scan(store))
    sure, doubtful = example_pairs(store, found, count=3)
    assert len(found.groups) == 4
    assert (len(sure), len(doubtful)) == (3, 1)
    shown = [Path(name).stem[:3] for pair in [*sure, *doubtful] for name in pair.caption.splitlines()[0].split(" | ")]
    assert sorted(shown) == sorted(2 * [f"{i:03}" for i in range(4)])
    assert all("the same pixels" in pair.caption for pair in sure)
    assert "bits apart" in doubtful[0].caption
    for pair in sure:
        assert (pair.images[0] == pair.images[1]).all()


def test_noise_images_are_not_duplicates(tmp_path: Path) -> None:
    for i in range(60):
        save(tmp_path / "p" / f"{i}.png", noise(i, 32, 32))
    found, _ = found_duplicates(tmp_path / "p")
    assert (found.exact, found.near) == ((), ())
    assert found.threshold == duplicates.MIN_THRESHOLD
