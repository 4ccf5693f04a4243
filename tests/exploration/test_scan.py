from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.exploring import gray_ramp, smooth
from helpers.making import noise, opened, save
from PIL import ImageEnhance

from undiffuse.data.decoding import decode
from undiffuse.exploration import fingerprints, scan
from undiffuse.exploration.colors import measure_colors


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_histograms_means_and_deviations_match_numpy(tmp_path: Path, monkeypatch, channels: int) -> None:
    for i in range(23):
        save(tmp_path / "p" / f"{i:02}.png", noise(i, 8, 12, channels))
    store = opened(tmp_path / "p", size=(8, 12), channels=channels)
    monkeypatch.setattr(scan, "BATCH_BYTES", 5 * 8 * 12 * channels)  # Several batches, the last of them short.
    scanned = scan.scan(store)
    pixels = store.read(range(23)).astype(np.float64)
    assert scanned.mean_image == pytest.approx(pixels.mean(axis=0))
    measured = measure_colors(scanned)
    assert len(measured.channels) == channels
    for i, channel in enumerate(measured.channels):
        values = pixels[..., i]
        assert channel.histogram == tuple(np.histogram(values, 256, (0, 256))[0])
        assert channel.mean == pytest.approx(values.mean())
        assert channel.std == pytest.approx(values.std())
        assert channel.unit_mean == pytest.approx((values / 127.5 - 1).mean())
        assert channel.unit_std == pytest.approx((values / 127.5).std())
        assert channel.fraction_at_0 == pytest.approx((values == 0).mean())
        assert channel.fraction_at_255 == pytest.approx((values == 255).mean())
    assert measured.unit_std == pytest.approx((pixels / 127.5).std())


def test_the_batch_size_does_not_matter(tmp_path: Path, monkeypatch) -> None:
    for i in range(7):
        save(tmp_path / "p" / f"{i}.png", noise(i))
    store = opened(tmp_path / "p")
    whole = scan.scan(store)
    monkeypatch.setattr(scan, "BATCH_BYTES", 1)
    one_by_one = scan.scan(store)
    for name in ("histograms", "digests", "hashes", "thumbnails"):
        assert (getattr(whole, name) == getattr(one_by_one, name)).all()


def pixels_of(*images) -> np.ndarray:
    return np.stack([decode(image, (64, 64), "crop", 3) for image in images])


def test_a_digest_differs_if_any_pixel_differs() -> None:
    image = pixels_of(noise(0))[0]
    other = image.copy()
    other[63, 63, 2] ^= 1
    assert fingerprints.digest(image) == fingerprints.digest(image.copy())
    assert fingerprints.digest(image) != fingerprints.digest(other)


def hashes_of(*images) -> list[str]:
    return [f"{value:064b}" for value in fingerprints.difference_hashes(fingerprints.to_gray(pixels_of(*images)))]


def test_the_difference_hash_marks_rising_brightness() -> None:
    rising, falling, flat = hashes_of(gray_ramp(64, 64), gray_ramp(64, 64).rotate(180), smooth(0).point(lambda _: 77))
    assert (rising, falling, flat) == ("1" * 64, "0" * 64, "0" * 64)


def test_a_darker_copy_has_nearly_the_same_hash() -> None:
    first, darker, other = hashes_of(smooth(1), ImageEnhance.Brightness(smooth(1)).enhance(0.6), smooth(2))
    assert sum(a != b for a, b in zip(first, darker, strict=True)) <= 2
    # Bits of unrelated images agree by chance: 32 of 64, with standard deviation 4 if they were independent.
    assert sum(a != b for a, b in zip(first, other, strict=True)) >= 16


def test_products_of_thumbnails_are_correlations() -> None:
    gray = fingerprints.to_gray(pixels_of(smooth(0), smooth(1), smooth(2)))
    thumbnails = fingerprints.standardized_thumbnails(gray)
    areas = torch.nn.functional.avg_pool2d(gray, 8).flatten(1).numpy()
    assert (thumbnails @ thumbnails.T).numpy() == pytest.approx(np.corrcoef(areas), abs=1e-5)


def test_a_flat_image_resembles_nothing() -> None:
    flat = fingerprints.to_gray(np.full((1, 16, 16, 3), 77, np.uint8))
    assert not fingerprints.standardized_thumbnails(flat).any()


def test_alpha_does_not_count_as_brightness() -> None:
    pixels = np.full((1, 16, 16, 4), 77, np.uint8)
    pixels[..., 3] = 255
    assert (fingerprints.to_gray(pixels) == 77).all()
