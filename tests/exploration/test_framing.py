import numpy as np
import pytest
from PIL import Image

from undiffuse.data.decoding import decode
from undiffuse.exploration.framing import crop_box, kept_fraction, measure_framing, size_of_median_shape


def ramps(height: int, width: int) -> Image.Image:
    """Red grows with the column and green with the row, from 0 to 255."""
    rows, columns = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    return Image.fromarray(np.stack([columns, rows, rows], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize(("height", "width"), [(200, 400), (400, 200), (300, 300), (250, 310)])
@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 32)])
def test_the_crop_box_is_what_decoding_keeps(height: int, width: int, size: tuple[int, int]) -> None:
    left, top, right, bottom = crop_box(height, width, size)
    kept = decode(ramps(height, width), size, "crop", 3).astype(float) / 255
    # Read off the ramps. The outermost pixels of the result lie half a pixel inside; rounding costs two levels.
    half_x, half_y = (right - left) / size[1] / 2, (bottom - top) / size[0] / 2
    assert kept[:, 0, 0].mean() * width == pytest.approx(left + half_x, abs=0.02 * width)
    assert kept[:, -1, 0].mean() * width == pytest.approx(right - half_x, abs=0.02 * width)
    assert kept[0, :, 1].mean() * height == pytest.approx(top + half_y, abs=0.02 * height)
    assert kept[-1, :, 1].mean() * height == pytest.approx(bottom - half_y, abs=0.02 * height)
    assert (right - left) * (bottom - top) / (height * width) == pytest.approx(kept_fraction(height, width, size))


def test_a_crop_loses_what_is_outside_the_frame() -> None:
    frame = measure_framing({(100, 100): 2, (100, 200): 1, (300, 100): 1}, (50, 50), "crop")
    assert frame.kept_mean == pytest.approx((1 + 1 + 1 / 2 + 1 / 3) / 4)
    assert frame.kept_min == pytest.approx(1 / 3)
    assert frame.heavily_cropped == 2
    assert frame.pixel_ratio_median == pytest.approx(0.25)  # 50 x 50 of the 100 x 100 that are not cut off.
    assert (frame.padding_mean, frame.stretch_max, frame.upscaled) == (0, 1, 0)


def test_padding_loses_nothing_but_fills_the_frame() -> None:
    frame = measure_framing({(100, 200): 3, (100, 100): 1}, (50, 50), "pad")
    assert (frame.kept_mean, frame.kept_min, frame.heavily_cropped) == (1, 1, 0)
    assert frame.padding_mean == pytest.approx(3 / 8)
    assert frame.pixel_ratio_median == pytest.approx(50 * 25 / (100 * 200))


def test_stretching_changes_proportions() -> None:
    frame = measure_framing({(100, 200): 1, (300, 100): 1}, (50, 50), "stretch")
    assert (frame.kept_mean, frame.padding_mean) == (1, 0)
    assert frame.stretch_max == pytest.approx(3)


@pytest.mark.parametrize(("fit", "upscaled"), [("crop", 3), ("pad", 1), ("stretch", 3)])
def test_images_enlarged_along_a_side_are_counted(fit, upscaled: int) -> None:
    shapes = {(32, 32): 1, (64, 32): 2, (64, 64): 4, (100, 80): 8}
    assert measure_framing(shapes, (64, 64), fit).upscaled == upscaled


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ({(300, 400): 3, (400, 300): 1}, (48, 64)),
        ({(400, 300): 3, (300, 400): 1}, (64, 48)),
        ({(500, 500): 1}, (64, 64)),
        ({(100, 2000): 1}, (16, 64)),
    ],
)
def test_the_suggested_shape_is_the_median_shape(shapes: dict, size: tuple[int, int]) -> None:
    assert size_of_median_shape(shapes, 64) == size
