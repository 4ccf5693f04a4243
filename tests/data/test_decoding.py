import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.making import encoded, noise, save
from PIL import Image

from undiffuse.data.decoding import decode
from undiffuse.utils.names import Fit


def pixels(image: Image.Image, channels: int, size: tuple[int, int] | None = None, fit: Fit = "crop") -> np.ndarray:
    """Decodes an image in memory: passing through a file would change nothing."""
    return decode(image, size or image.size[::-1], fit, channels)


def row(*values: object) -> np.ndarray:
    """One row of pixels, (1, width, channels)."""
    array = np.array(values)
    return array.reshape(1, len(values), -1)


# Gray of a color: 0.299 R + 0.587 G + 0.114 B (ITU-R 601).
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
GRAY_OF = {RED: 76, GREEN: 150, BLUE: 29, WHITE: 255, (7, 7, 7): 7}


def test_rgb_is_unchanged_and_becomes_gray_by_luminance() -> None:
    image = Image.fromarray(row(*GRAY_OF).astype(np.uint8))
    assert (pixels(image, 3) == row(*GRAY_OF)).all()
    assert (pixels(image, 1) == row(*GRAY_OF.values())).all()
    assert (pixels(image, 4) == row(*((*color, 255) for color in GRAY_OF))).all()


def test_gray_becomes_equal_channels() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gray = Image.fromarray(values)
    assert (pixels(gray, 1)[..., 0] == values).all()
    assert (pixels(gray, 3) == values[..., None]).all()
    assert (pixels(gray, 4) == np.dstack([values] * 3 + [np.full_like(values, 255)])).all()


def test_black_and_white_becomes_0_and_255() -> None:
    image = Image.fromarray(np.array([[True, False, True]]))
    assert image.mode == "1"
    assert (pixels(image, 1) == row(255, 0, 255)).all()
    assert (pixels(image, 3) == row(WHITE, (0, 0, 0), WHITE)).all()


def test_transparent_images_go_onto_white() -> None:
    values = row((10, 200, 30, 255), (10, 200, 30, 0), (10, 200, 30, 51), (0, 0, 0, 128)).astype(np.uint8)
    image = Image.fromarray(values)
    over_white = row((10, 200, 30), WHITE, (206, 244, 210), (127, 127, 127))  # c a + 255 (1 - a)
    assert (pixels(image, 3) == over_white).all()
    assert (pixels(image, 1) == row(124, 255, 229, 127)).all()


def test_alpha_can_be_kept() -> None:
    values = row((10, 200, 30, 255), (10, 200, 30, 0), (10, 200, 30, 51)).astype(np.uint8)
    assert (pixels(Image.fromarray(values), 4) == values).all()


def test_transparent_gray_images_go_onto_white() -> None:
    image = Image.fromarray(row((100, 255), (100, 0), (100, 51)).astype(np.uint8))
    assert image.mode == "LA"
    assert (pixels(image, 1) == row(100, 255, 224)).all()
    assert (pixels(image, 3) == row((100,) * 3, WHITE, (224,) * 3)).all()
    assert (pixels(image, 4) == row((100, 100, 100, 255), (100, 100, 100, 0), (100, 100, 100, 51))).all()


def palette(**options: object) -> Image.Image:
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    image.putpalette([*RED, *GREEN, *BLUE, 9, 8, 7])
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    opened = Image.open(file)
    assert opened.mode == "P"
    return opened


def test_a_palette_becomes_its_colors() -> None:
    assert (pixels(palette(), 3) == row(RED, GREEN, BLUE, (9, 8, 7))).all()
    assert (pixels(palette(), 1) == row(76, 150, 29, 8)).all()


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255, 255])], ids=["entry", "table"])
def test_a_palettes_transparent_entry_is_transparent(transparency: int | bytes) -> None:
    image = palette(transparency=transparency)
    assert (pixels(image, 3) == row(RED, WHITE, BLUE, (9, 8, 7))).all()
    alpha = pixels(image, 4)
    assert (alpha[..., 3] == row(255, 0, 255, 255)[..., 0]).all()
    assert (alpha[0, [0, 2, 3], :3] == [RED, BLUE, (9, 8, 7)]).all()


def test_a_color_that_stands_for_transparency_is_transparent() -> None:
    file = io.BytesIO()
    Image.fromarray(row(RED, GREEN).astype(np.uint8)).save(file, "PNG", transparency=GREEN)
    assert (pixels(Image.open(file), 3) == row(RED, WHITE)).all()
    assert (pixels(Image.open(file), 4)[0, :, 3] == [255, 0]).all()


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(format: str) -> None:
    inks = {(0, 0, 0, 0): WHITE, (0, 255, 255, 0): RED, (255, 0, 255, 0): GREEN, (0, 0, 0, 255): (0, 0, 0)}
    inks[(51, 0, 102, 51)] = (163, 204, 122)  # (255 - ink) (255 - black) / 255
    for ink, color in inks.items():
        file = io.BytesIO()
        Image.new("CMYK", (8, 8), ink).save(file, format, quality=100)
        decoded = pixels(Image.open(file), 3).astype(int)
        # A JPEG is rounded in its own color space first.
        assert np.abs(decoded - color).max() <= (2 if format == "JPEG" else 0)


SIXTEEN_BITS = {
    0: 0,
    128: 0,
    129: 1,
    257: 1,
    385: 1,
    386: 2,
    25700: 100,
    32768: 128,
    65406: 254,
    65407: 255,
    65535: 255,
}


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_divided_by_257(format: str, dtype: str) -> None:
    image = Image.fromarray(np.array([list(SIXTEEN_BITS)], dtype))
    file = io.BytesIO()
    image.save(file, format)
    assert (pixels(Image.open(file), 1) == row(*SIXTEEN_BITS.values())).all()
    assert (pixels(Image.open(file), 3) == row(*([v] * 3 for v in SIXTEEN_BITS.values()))).all()


def test_a_sixteen_bit_pgm_is_divided_by_257() -> None:
    values = np.array(list(SIXTEEN_BITS), ">u2")
    file = io.BytesIO(b"P5 %d 1 65535\n" % len(values) + values.tobytes())
    assert (pixels(Image.open(file), 1) == row(*SIXTEEN_BITS.values())).all()


def test_floating_point_gray_goes_from_0_to_1() -> None:
    values = {0.0: 0, 1.0: 255, 0.5: 128, 0.2: 51, -3.0: 0, 7.0: 255, np.inf: 255, -np.inf: 0, np.nan: 0}
    file = io.BytesIO()
    Image.fromarray(np.array([list(values)], np.float32)).save(file, "TIFF")
    assert (pixels(Image.open(file), 1) == row(*values.values())).all()


def test_floating_point_gray_is_rounded_to_the_nearest_level() -> None:
    """Numbers next to the middle between two levels are on one side of it, as their exact values are."""
    middles = ((np.arange(255) + 0.5) / 255).astype(np.float32)
    values = np.concatenate([np.nextafter(middles, np.float32(side)) for side in (0, 1)] + [middles])
    exact = [round(Fraction(float(value)) * 255) for value in values]
    assert pixels(Image.fromarray(values[None]), 1).ravel().tolist() == exact


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What a viewer does to the stored rows and columns for each EXIF orientation."""


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = save(tmp_path / f"stored{suffix}", noise(0, 6, 10), lossless=True)
    turned = save(tmp_path / f"turned{suffix}", noise(0, 6, 10), lossless=True, exif=exif.tobytes())
    with Image.open(stored) as as_stored, Image.open(turned) as image:
        expected = UPRIGHT[orientation](np.asarray(as_stored.convert("RGB")))
        size = (6, 10) if orientation < 5 else (10, 6)
        assert (decode(image, size, "crop", 3) == expected).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_spoil_the_image() -> None:
    for exif in (b"Exif\0\0garbage!!", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        plain, damaged = io.BytesIO(), io.BytesIO()
        noise(0).save(plain, "JPEG")
        noise(0).save(damaged, "JPEG", exif=exif)
        assert (pixels(Image.open(damaged), 3) == pixels(Image.open(plain), 3)).all()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    for format in ("GIF", "PNG", "WEBP"):
        file = io.BytesIO()
        frames[0].save(file, format, save_all=True, append_images=frames[1:], lossless=True)
        image = Image.open(file)
        image.seek(1)  # There is a second.
        image.seek(0)
        assert (pixels(image, 3) == RED).all()


def test_crop_cuts_off_evenly_on_both_sides() -> None:
    wide, high = np.asarray(noise(0, 8, 14)), np.asarray(noise(1, 14, 8))
    assert (pixels(Image.fromarray(wide), 3, (8, 8)) == wide[:, 3:11]).all()
    assert (pixels(Image.fromarray(high), 3, (8, 8)) == high[3:11]).all()
    assert (pixels(Image.fromarray(wide), 3, (8, 10)) == wide[:, 2:12]).all()


def test_crop_fills_the_size() -> None:
    bands = np.repeat(np.array([[10], [80], [160]], np.uint8), [8, 16, 8], axis=0)
    image = Image.fromarray(np.tile(bands, (1, 16)))
    halved = pixels(image, 1, (8, 8))[..., 0]  # The middle 16 rows of 32, all in the middle band.
    # Bicubic weights reach two pixels of the result beyond its own.
    assert (halved[2:-2] == 80).all()
    assert (halved == halved[:, :1]).all()


def test_pad_shows_all_of_the_image_on_black() -> None:
    wide, high = np.asarray(noise(0, 4, 8)), np.asarray(noise(1, 8, 4))
    black = np.zeros((8, 8, 3), np.uint8)
    letterbox, pillarbox = black.copy(), black.copy()
    letterbox[2:6], pillarbox[:, 2:6] = wide, high
    for _ in range(20):  # Memory that is not cleared would show now and then.
        assert (pixels(Image.fromarray(wide), 3, (8, 8), "pad") == letterbox).all()
        assert (pixels(Image.fromarray(high), 3, (8, 8), "pad") == pillarbox).all()


def test_pad_is_transparent_where_alpha_is_kept() -> None:
    wide = np.asarray(noise(0, 4, 8, 4))
    expected = np.zeros((8, 8, 4), np.uint8)
    expected[2:6] = wide
    assert (pixels(Image.fromarray(wide), 4, (8, 8), "pad") == expected).all()


def test_stretch_shows_all_of_the_image_without_borders() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (8, 1, 3), np.uint8)
    image = Image.fromarray(rows.repeat(4, axis=1))
    assert (pixels(image, 3, (8, 20), "stretch") == rows.repeat(20, axis=1)).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_fit_gives_the_requested_size_and_the_same_color(fit: Fit, channels: int) -> None:
    for source in ((31, 47), (200, 20), (5, 9)):
        decoded = decode(Image.new("RGB", source[::-1], (7, 7, 7)), (24, 16), fit, channels)
        assert decoded.shape == (24, 16, channels)
        middle = decoded[11:13, 7:9]
        assert (middle == ([7, 7, 7, 255] if channels == 4 else 7)).all()


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_the_color_of_transparent_pixels_does_not_bleed(fit: Fit) -> None:
    values = np.zeros((32, 32, 4), np.uint8)
    values[:, :13] = (*GREEN, 255)
    values[:, 13:] = (*RED, 0)  # Nobody ever sees this red.
    image = Image.fromarray(values)
    kept = pixels(image, 4, (8, 8), fit)
    seen = kept[kept[..., 3] > 0]
    assert len(np.unique(kept[..., 3])) > 2, "the edge must fall within a pixel for this to prove anything"
    assert (seen[:, :3] == GREEN).all()
    on_white = pixels(image, 3, (8, 8), fit)
    assert (on_white[..., 0] == on_white[..., 2]).all()
    assert (on_white[..., 1] == 255).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("side", [6, 30])
def test_resizing_is_pillows_bicubic(fit: Fit, side: int) -> None:
    image = noise(0, 12, 12)
    expected = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    assert (pixels(image, 3, (side, side), fit) == expected).all()


def test_shrinking_is_antialiased() -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    # Half of the pixels are white: their mean is 127.5, and any sample without a filter would be 0 or 255.
    assert np.abs(pixels(Image.fromarray(checkers), 1, (8, 8)).astype(float) - 127.5).max() <= 2


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_truncated_file_raises(format: str) -> None:
    whole = encoded(noise(0, 64, 64), format)
    with pytest.raises((OSError, SyntaxError, ValueError, EOFError, IndexError)):
        pixels(Image.open(io.BytesIO(whole[: len(whole) // 2])), 3)
