"""Limits on images, lowered so that small ones pass them; tests/test_hostile.py measures the real ones."""

from pathlib import Path

import numpy as np
import pytest
from helpers.hostile.images import resized_jpeg
from helpers.making import noise, opened, save
from PIL import Image

from undiffuse.data.decoding import STRIP_PIXELS, decode, to_channels
from undiffuse.data.image_files import MAX_PIXELS, open_image_file
from undiffuse.utils.limits import DEFAULT_GB, VARIABLE


def allow(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    """Lowers the limit of pixels alone: that of a file's length would come first."""
    monkeypatch.setattr("undiffuse.data.image_files.MAX_PIXELS", pixels)


def smooth(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows, columns, rows // 2 + columns // 2], axis=2).astype(np.uint8))


def test_a_larger_limit_reads_what_a_smaller_one_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "photos" / "small.png", noise(0))
    save(tmp_path / "photos" / "large.png", Image.new("RGB", (100, 100), "red"))
    monkeypatch.setenv(VARIABLE, repr(DEFAULT_GB * 5_000 / MAX_PIXELS))
    ((name, reason),) = opened("photos").skipped
    assert name == "large.png"
    assert "more than the 0 megapixels that are decoded" in reason
    monkeypatch.setenv(VARIABLE, repr(DEFAULT_GB * 10_001 / MAX_PIXELS))
    assert opened("photos").names == ["large.png", "small.png"]


@pytest.mark.parametrize(("allowed", "size"), [(4096, (64, 64)), (4095, (32, 32)), (1000, (16, 16)), (200, (8, 8))])
def test_a_jpeg_is_reduced_no_more_than_it_must_be(
    allowed: int, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.jpg", smooth(64, 64), quality=95, subsampling=0)
    whole = decode(open_image_file(path), (8, 8), "crop", 3).astype(int)
    allow(monkeypatch, allowed)
    image = open_image_file(path)
    assert image.size == (64, 64)
    reduced = decode(image, (8, 8), "crop", 3).astype(int)
    assert image.size == size
    assert abs(reduced - whole).max() <= 6


def test_a_progressive_jpeg_is_not_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.jpg", smooth(64, 64), progressive=True)
    allow(monkeypatch, 4095)
    with pytest.raises(ValueError, match="progressive JPEG"):
        open_image_file(path)


def test_a_jpeg_is_reduced_only_where_it_can_be_read_in_reasonable_time() -> None:
    """All of its pixels are read even so: what claims a gigapixel is still opened, and no more."""
    assert open_image_file(resized_jpeg(32_768, 32_768)).size == (32_768, 32_768)
    with pytest.raises(ValueError, match="it claims 1,074 megapixels, more than the 1,074 megapixels that are decoded"):
        open_image_file(resized_jpeg(32_768, 32_769))


@pytest.mark.parametrize("mode", ["I;16", "F", "P", "LA", "RGBA", "CMYK", "L", "1"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_strips_change_no_pixel(mode: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (37, 23), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 200)
    elif mode == "F":
        image = Image.fromarray(gray.astype(np.float32) / 255)
    else:
        image = noise(3, 37, 23, 4).convert("RGB" if mode in ("P", "CMYK") else "RGBA").convert(mode)
    if mode == "P":
        image.info["transparency"] = 7
    whole = np.asarray(to_channels(image, channels))
    monkeypatch.setattr("undiffuse.data.decoding.STRIP_PIXELS", 23 * 5)
    assert STRIP_PIXELS > 23 * 37
    np.testing.assert_array_equal(np.asarray(to_channels(image, channels)), whole)
