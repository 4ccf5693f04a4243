from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.making import encoded, noise, save, save_noise, write_zip

from undiffuse.data.given_images import GivenLike, read_given
from undiffuse.data.low_resolution import reduced
from undiffuse.data.one_image import prepared
from undiffuse.data.pixels import to_nchw


def test_small_images_come_as_they_are(notices: pytest.LogCaptureFixture) -> None:
    image = noise(0, 4, 6)
    given = read_given(image, (16, 24), "crop", 3, 4)
    assert given.names == ("image 0",)
    assert torch.equal(given.pixels[0], prepared(image, (4, 6), "crop", 3))
    assert notices.messages == []


def test_large_images_are_made_small_as_in_training(notices: pytest.LogCaptureFixture) -> None:
    image = noise(0, 40, 40)
    given = read_given([image, noise(1, 5, 5)], (16, 16), "crop", 1, 4)
    expected = reduced(prepared(image, (16, 16), "crop", 1)[None] / 127.5 - 1, 4)
    assert torch.equal(given.pixels[:1], expected)
    assert notices.messages == [
        "--condition: 1 of 2 images made smaller, to 4x4, as in training.",
        "--condition: 1 of 2 images cropped or resized to 4x4.",
    ]


def test_paired_images_have_the_model_s_size(notices: pytest.LogCaptureFixture) -> None:
    given = read_given(noise(0, 20, 16), (8, 8), "stretch", 1)
    assert torch.equal(given.pixels[0], prepared(noise(0, 20, 16), (8, 8), "stretch", 1))
    assert notices.messages == ["--condition: 1 of 1 image resized to 8x8."]


@pytest.mark.parametrize("kind", ["folder", "zip", "files", "array", "tensor", "images"])
def test_several_images_come_in_any_form(kind: str, tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "small", "a.png", "b/c.png")
    images = [noise(0), noise(1)]
    array = np.stack([np.asarray(image) for image in images])
    forms: dict[str, GivenLike] = {
        "folder": str(folder),
        "zip": write_zip(tmp_path / "small.zip", {f"{i}.png": encoded(image) for i, image in enumerate(images)}),
        "files": [folder / "a.png", folder / "b" / "c.png"],
        "array": array,
        "tensor": to_nchw(array),
        "images": images,
    }
    given = read_given(forms[kind], (16, 16), "crop", 3)
    assert torch.equal(given.pixels, to_nchw(array))
    names = {"folder": ("a.png", "b/c.png"), "zip": ("0.png", "1.png"), "files": ("a.png", "c.png")}
    assert given.names == names.get(kind, ("image 0", "image 1"))


def test_the_images_are_taken_in_turn() -> None:
    given = read_given([noise(0), noise(1), noise(2)], (16, 16), "crop", 3)
    assert torch.equal(given.of([5, 0, 4]), given.pixels[[2, 0, 1]])


def test_photos_are_upright(tmp_path: Path) -> None:
    image = noise(0, 8, 16)
    exif = image.getexif()
    exif[0x0112] = 6
    save(tmp_path / "photos/a.png", image, exif=exif)
    for given in (tmp_path / "photos", tmp_path / "photos/a.png"):
        upright = read_given(given, (16, 8), "stretch", 3).pixels[0]
        assert torch.equal(upright, prepared(image.rotate(-90, expand=True), (16, 8), "stretch", 3))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "a.png")
    (folder / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"--condition: bad.png cannot be read .* remove it"):
        read_given(folder, (8, 8), "crop", 3)
    with pytest.raises(FileNotFoundError, match=r"--condition: there is no file at .*none\.png"):
        read_given(tmp_path / "none.png", (8, 8), "crop", 3)
    with pytest.raises(ValueError, match="--condition has no images"):
        read_given([], (8, 8), "crop", 3)
