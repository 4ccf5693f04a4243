"""One image or mask: read as training reads images, and refused in one sentence."""

import re
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
import pytest
import torch

from undiffuse.data.one_image import ImageLike, MaskLike, open_image, open_mask, prepared, prepared_mask, unscaled_size
from undiffuse.data.store import DataConfig, open_store
from undiffuse.utils.names import Fit


def photo(folder: Path) -> Path:
    """A sideways photo with a color in each corner."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10, :15, 0] = pixels[10:, 15:, 1] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = folder / "photo.jpg"
    PIL.Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_is_what_training_would_read(fit: Fit, channels: Literal[1, 3, 4], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    path = photo(tmp_path / "photos")
    config = DataConfig(data=str(path.parent), size=(8, 12), fit=fit, channels=channels)
    expected = torch.from_numpy(open_store(config).read([0])).permute(0, 3, 1, 2)[0]
    assert (prepared(open_image(path), (8, 12), fit, channels) == expected).all()


def test_pixels_and_pil_images_are_taken_too() -> None:
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    given: list[ImageLike] = [array, torch.from_numpy(array).permute(2, 0, 1), PIL.Image.fromarray(array)]
    for image in given:
        assert (np.asarray(open_image(image)) == array).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_mask_goes_the_way_of_its_image(fit: Fit) -> None:
    image = np.zeros((20, 40), np.uint8)
    image[:10, 15:20] = 255
    both = PIL.Image.fromarray(image)
    mask = prepared_mask(both, both, (10, 10), fit)
    seen = prepared(both, (10, 10), fit, 1)[0]
    assert (mask[seen > 200]).all()
    assert (~mask[seen < 50]).all()
    own = PIL.Image.fromarray(mask.numpy().astype(np.uint8) * 255)
    assert (prepared_mask(own, both, (10, 10), fit) == mask).all(), "drawn on the prepared image"


def test_transparent_counts_as_white() -> None:
    pixels = np.full((8, 8, 4), [0, 0, 0, 255], np.uint8)
    pixels[:4, :, 3] = 0
    image = PIL.Image.new("RGB", (8, 8))
    assert prepared_mask(PIL.Image.fromarray(pixels), image, (8, 8), "crop").sum() == 32


def test_booleans_are_a_mask() -> None:
    array = np.zeros((6, 4), bool)
    array[3:] = True
    tensor = torch.from_numpy(array)
    given: list[MaskLike] = [
        array,
        array[..., None],
        tensor,
        tensor[None],
        array.tolist(),
        [*map(tuple, array.tolist())],
    ]
    given += [array.astype(np.uint8) * 255, PIL.Image.fromarray(array)]
    for mask in given:
        assert (np.asarray(open_mask(mask).convert("L")) == 255 * array).all()


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.ones((4, 4)), "values of type float64: give booleans, True where pixels are regenerated"),
        (torch.ones(4, 4, dtype=torch.int64), "values of type int64"),
        (np.ones(4, bool), "has the shape \\(4,\\): give booleans \\(height, width\\)"),
        (np.ones((4, 4, 3), bool), "has the shape \\(4, 4, 3\\)"),
        ([], "values of type float64"),
        ([[True], [True, False]], "rows of different lengths"),
    ],
)
def test_numbers_that_are_no_mask_are_refused_in_one_sentence(mask: MaskLike, says: str) -> None:
    with pytest.raises(ValueError, match=f"^--mask .*{says}"):
        open_mask(mask)


def test_a_mask_of_another_shape_or_without_white_is_refused() -> None:
    image = PIL.Image.new("RGB", (40, 20))
    with pytest.raises(ValueError, match="--mask is 30x10, but the image is 20x40"):
        prepared_mask(PIL.Image.new("L", (10, 30), 255), image, (8, 8), "crop")
    with pytest.raises(ValueError, match="--mask has no white at 8x8"):
        prepared_mask(PIL.Image.new("L", (40, 20), 127), image, (8, 8), "crop")


@pytest.mark.parametrize(
    ("shape", "fit", "expected"),
    [((8, 8), "crop", (8, 8)), ((8, 10), "crop", (8, 8)), ((8, 10), "pad", (10, 10)), ((8, 10), "stretch", (8, 10))],
)
def test_a_small_image_is_cropped_or_padded_but_not_resized(
    shape: tuple[int, int], fit: Fit, expected: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = PIL.Image.fromarray(pixels)
    size = unscaled_size(image, (32, 32), fit)
    assert size == expected
    if fit == "crop":
        left = (shape[1] - 8) // 2
        assert (prepared(image, size, fit, 1)[0].numpy() == pixels[:, left : left + 8]).all()


def test_an_image_is_kept_whole_in_the_proportions_of_a_size_that_is_not_square() -> None:
    image = PIL.Image.new("L", (60, 20))
    assert unscaled_size(image, (32, 64), "crop") == (20, 40), "half as high as wide, within the image"
    assert unscaled_size(image, (32, 64), "pad") == (30, 60), "and around it"
    assert unscaled_size(image, (64, 32), "crop") == (20, 10)
    assert unscaled_size(image, (64, 32), "pad") == (120, 60)


def test_what_is_no_image_is_refused_in_one_sentence(tmp_path: Path) -> None:
    text, cut, huge = tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "huge.pgm"
    text.write_text("not an image")
    PIL.Image.effect_noise((64, 64), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:1000])
    huge.write_bytes(b"P5 60000 60000 255\n")
    for given, says in {
        tmp_path / "nothing.png": "there is no file at",
        tmp_path: "cannot be read",
        text: "is not an image",
        cut: "cannot be read",
        huge: "it claims 3,600 megapixels, more than the 80",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(given))) as raised:
            open_image(given)
        assert says in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(ValueError, match="pixels of type float32"):
        open_image(np.zeros((4, 4), np.float32))
