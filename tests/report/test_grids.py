"""Images stand in grids, strips and animations where they should, pixel by pixel."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor
from torchvision.utils import make_grid

from undiffuse.diffusion.samplers import Step
from undiffuse.report.grids import (
    FILM_FRAMES,
    Frame,
    Images,
    enlarged,
    film_strip,
    frames,
    grid,
    grid_for_page,
    save_animation,
    save_png,
    to_pil,
)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def array(image: Image.Image) -> np.ndarray:
    """(height, width, channels)."""
    return np.atleast_3d(np.asarray(image))


def shrunk(image: Image.Image, width: int) -> np.ndarray:
    """The image before it was enlarged, `width` wide, each pixel of which must have become a square of one color."""
    factor, rest = divmod(image.width, width)
    assert rest == 0
    small = array(image)[::factor, ::factor]
    assert np.array_equal(small.repeat(factor, 0).repeat(factor, 1), array(image))
    return small


def tiles(image: Image.Image, columns: int, height: int, width: int, gap: int = 1) -> np.ndarray:
    """The images of a grid, (rows, columns, height, width, channels); all between them must be white."""
    small = shrunk(image, columns * (width + gap) + gap)
    rows, rest = divmod(small.shape[0] - gap, height + gap)
    assert rest == 0
    between = np.ones(small.shape[:2], bool)
    found = []
    for row in range(rows):
        for column in range(columns):
            y, x = gap + row * (height + gap), gap + column * (width + gap)
            between[y : y + height, x : x + width] = False
            found.append(small[y : y + height, x : x + width])
    assert (small[between] == 255).all()
    return np.stack(found).reshape(rows, columns, height, width, -1)


@pytest.mark.parametrize(("count", "columns"), [(1, None), (2, 5), (5, 3), (6, 3), (7, None)])
@pytest.mark.parametrize(("channels", "gap"), [(3, 1), (1, 2), (4, 0)])
def test_a_grid_is_torchvisions(count: int, columns: int | None, channels: int, gap: int) -> None:
    pixels = noise(count, channels, 40, 30)
    per_row = columns or round((count * 40 / 30) ** 0.5)
    expected = make_grid(pixels, nrow=per_row, padding=gap, pad_value=255)[:channels]
    made = array(grid(pixels, columns, gap))
    assert (made == array(enlarged(to_pil(expected)))).all()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_image_keeps_its_pixels_in_the_mode_of_its_channels(channels: int, mode: str, tmp_path: Path) -> None:
    pixels = noise(channels, 5, 7)
    image = to_pil(pixels)
    assert image.mode == mode
    assert image.size == (7, 5)
    save_png(image, tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as saved:
        assert saved.mode == mode
        assert np.array_equal(array(saved), pixels.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("count", [2, 5, 6])
def test_a_grid_has_its_images_row_by_row_on_white(count: int, channels: int, mode: str) -> None:
    pixels = noise(count, channels, 3, 4)
    image = grid(pixels, columns=2)
    assert image.mode == mode
    places = tiles(image, 2, 3, 4).reshape(-1, 3, 4, channels)
    assert np.array_equal(places[:count], pixels.permute(0, 2, 3, 1).numpy())
    assert (places[count:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_grid_of_one_image_is_the_image(channels: int) -> None:
    pixels = noise(1, channels, 3, 4)
    assert np.array_equal(shrunk(grid(pixels), 4), pixels[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("count", "height", "width", "columns", "rows"),
    [(64, 8, 8, 8, 8), (10, 8, 8, 3, 4), (18, 8, 16, 3, 6), (18, 16, 8, 6, 3), (2, 4, 40, 1, 2)],
)
def test_a_grid_is_as_near_to_a_square_as_can_be(count: int, height: int, width: int, columns: int, rows: int) -> None:
    assert tiles(grid(noise(count, 1, height, width)), columns, height, width).shape[:2] == (rows, columns)


def test_small_images_are_enlarged_by_whole_pixels_to_about_640_and_large_ones_left() -> None:
    for side in (3, 10, 99, 200, 500, 640, 2000):
        image = to_pil(noise(1, 2, side))
        larger = enlarged(image)
        assert np.array_equal(shrunk(larger, side), array(image))
        factor = larger.width // side
        # No other whole factor comes nearer to 640.
        assert all(abs(640 / side - factor) <= abs(640 / side - f) for f in (max(1, factor - 1), factor + 1))


def steps(count: int) -> Iterator[Step]:
    """x is sigma's noise of 1 at every pixel, x0 the number of the step as a level of gray."""
    for i in range(count):
        sigma = torch.tensor(float(count - 1 - i), dtype=torch.float64)
        x = torch.sqrt(1 + sigma**2) * torch.full((3, 1, 4, 5), i / count, dtype=torch.float64)
        yield Step(sigma, x, torch.full((3, 1, 4, 5), i / 127.5 - 1, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2, 39, 40, 41, 200])
def test_a_film_shows_few_frames_evenly_spread_with_first_and_last(count: int) -> None:
    film = frames(steps(count), count)
    assert len(film) == min(count, FILM_FRAMES)
    shown = [int(frame.clean[0, 0, 0, 0]) for frame in film]
    assert shown[-1] == count - 1
    if count > 1:
        assert shown[0] == 0
        strides = np.diff(shown)
        assert strides.min() >= 1
        assert strides.max() - strides.min() <= 1
    for frame, i in zip(film, shown, strict=True):
        # Noise of level sigma is shown as DDPM's x_t: scaled to the range of the pixels.
        assert (frame.noisy == round((i / count + 1) * 127.5)).all()


def film_of(count: int) -> list[Frame]:
    """Frame i has gray 2 i in the noisy images and 2 i + 1 in the clean ones, 100 more in the second image."""

    def gray(level: int) -> Tensor:
        return torch.tensor([level, level + 100], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 5)

    return [Frame(gray(2 * i), gray(2 * i + 1)) for i in range(count)]


def test_a_film_strip_goes_from_noise_to_done_with_the_clean_image_below() -> None:
    strip = tiles(film_strip(film_of(40), images=2, columns=4), 4, 4, 5)
    shown = np.array([0, 13, 26, 39])
    expected = np.stack([2 * shown, 2 * shown + 1, 2 * shown + 100, 2 * shown + 101])
    assert np.array_equal(strip, np.broadcast_to(expected[:, :, None, None, None], strip.shape))


def test_a_film_strip_of_one_column_shows_the_end() -> None:
    strip = tiles(film_strip(film_of(40), images=1, columns=1), 1, 4, 5)
    assert strip[:, 0, 0, 0, 0].tolist() == [78, 79]


def test_a_short_film_makes_a_short_strip_of_the_images_there_are() -> None:
    assert tiles(film_strip(film_of(2), images=4, columns=10), 2, 4, 5).shape[:2] == (4, 2)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_an_animation_has_every_frame_and_rests_on_the_last(count: int, tmp_path: Path) -> None:
    file = tmp_path / "film.gif"
    film = film_of(count)
    save_animation(film, file)
    with Image.open(file) as animation:
        played = [(frame.info["duration"], frame.convert("RGB").copy()) for frame in ImageSequence.Iterator(animation)]
    assert [duration for duration, _ in played] == [80] * (count - 1) + [2000]
    for (_, image), frame in zip(played, film, strict=True):
        assert np.array_equal(array(image), array(grid(frame.noisy).convert("RGB")))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["film.gif"]


def test_frames_that_are_alike_still_take_their_time(tmp_path: Path) -> None:
    save_animation(film_of(1) * 5, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as animation:
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(animation)) == 4 * 80 + 2000


@pytest.fixture
def images() -> Images:
    return Images(noise(5, 3, 8, 6))  # A tensor: (n, channels, height, width).


def test_images_are_an_array_that_numpy_and_torch_take(images: Images) -> None:
    assert (images.shape, images.dtype) == ((5, 8, 6, 3), np.uint8)
    assert np.array_equal(images, Images(np.array(images)))
    assert torch.equal(images.to_torch(), noise(5, 3, 8, 6))
    assert torch.equal(torch.from_numpy(images).permute(0, 3, 1, 2), images.to_torch())


def test_arithmetic_on_images_gives_plain_arrays(images: Images) -> None:
    assert type(images / 255) is np.ndarray
    assert isinstance(images.mean(), float)
    assert isinstance(images[1:3], Images)


def test_images_show_themselves_in_a_notebook_as_their_grid(images: Images) -> None:
    shown = images._repr_png_()
    assert shown is not None
    assert np.array_equal(array(Image.open(io.BytesIO(shown))), array(images.grid()))
    one, row, floats = (view(images) for view in (lambda i: i[0], lambda i: i[0, 0], lambda i: i.astype(np.float32)))
    assert [view._repr_png_() is None for view in (one, row, floats)] == [False, True, True]


def test_images_are_saved_as_a_grid_and_one_by_one(images: Images, tmp_path: Path) -> None:
    assert np.array_equal(array(Image.open(images.save_grid(tmp_path / "grid.png", columns=5))), array(images.grid(5)))
    paths = images.save(tmp_path / "each")
    assert [path.name for path in paths] == [f"{i:06d}.png" for i in range(5)]
    assert all(np.array_equal(array(Image.open(path)), images[i]) for i, path in enumerate(paths))


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 2), np.uint8)]
)
def test_what_is_not_images_is_refused_with_its_shape(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{pixels.dtype} of shape {pixels.shape} is not images")):
        Images(pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_page_shows_through_between_the_images_of_a_grid_but_not_through_them(channels: int) -> None:
    pixels = noise(4, channels, 3, 5)
    shown = np.asarray(grid_for_page(pixels, columns=2).resize((13, 9), Image.Resampling.NEAREST))
    assert (shown[[0, 4, 8]][:, :, 3] == 0).all()
    assert (shown[:, [0, 6, 12], 3] == 0).all()
    first = to_pil(pixels[0]).convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", first.size, "white"), first)
    np.testing.assert_allclose(shown[1:4, 1:6].astype(int), np.asarray(on_white).astype(int), atol=1)
