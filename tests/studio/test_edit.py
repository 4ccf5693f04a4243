"""What was drawn, as the model takes it."""

import numpy as np
import PIL.Image
import pytest
import torch
from helpers.making import noise

from undiffuse import api
from undiffuse.sampling.model import Model, last
from undiffuse.studio.edit import editor_value, from_editor, painted, prepared_edit
from undiffuse.studio.sampling import NO_CLASS, Request


@pytest.fixture(scope="module")
def digits() -> Model:
    return api.load("digits", device="cpu")


def layer(side: int, *boxes: tuple[int, int, int, int]) -> PIL.Image.Image:
    """A layer with painted boxes (left, top, right, bottom)."""
    image = PIL.Image.new("RGBA", (side, side))
    for box in boxes:
        image.paste("#d55e00", box)
    return image


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (16, 16, 3), (48, 64, 3), (500, 600, 3)])
def test_an_image_comes_back_from_the_editor_as_it_went_in(height: int, width: int, channels: int) -> None:
    pixels = torch.from_numpy(np.asarray(noise(1, height, width, channels)).copy()).reshape(height, width, channels)
    drawn = editor_value(pixels.permute(2, 0, 1))
    back = from_editor(drawn["background"], (channels, height, width))
    assert torch.equal(back, pixels.permute(2, 0, 1))


def test_a_pixel_is_painted_from_half_of_it_on() -> None:
    drawn = {"layers": [layer(80, (0, 0, 20, 10)), layer(80, (40, 40, 44, 50), (60, 60, 66, 70))]}
    mask = painted(drawn, (8, 8))
    assert torch.nonzero(mask).tolist() == [[0, 0], [0, 1], [6, 6]]


@pytest.mark.parametrize("drawn", [{}, {"layers": []}, {"layers": [layer(80)]}, {"layers": [layer(80, (0, 0, 4, 4))]}])
def test_nothing_painted_is_a_sentence(drawn: dict) -> None:
    with pytest.raises(ValueError, match="Nothing is painted"):
        painted(drawn, (8, 8))


def test_what_is_not_painted_stays_to_the_byte(digits: Model) -> None:
    pixels = digits.sample(1, seed=3, steps=6).to_torch()[0]
    side = editor_value(pixels)["background"].width
    drawn = editor_value(pixels) | {"layers": [layer(side, (0, 0, side // 2, side))]}
    asked = Request(run="digits", label="3", sampler="euler_ancestral", steps=3, count=2)
    edit = prepared_edit(digits, asked, "inpaint", 0.5, drawn)
    made = ((last(edit.steps(asked.seeds)).x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    half = pixels.shape[2] // 2
    assert torch.equal(made[:, :, :, half:], pixels[None, :, :, half:].expand(2, -1, -1, -1))
    assert not torch.equal(made[0, :, :, :half], made[1, :, :, :half])


def test_strength_zero_gives_the_image_back(digits: Model) -> None:
    pixels = digits.sample(1, seed=3, steps=6).to_torch()[0]
    asked = Request(run="digits", label=NO_CLASS, steps=6, count=1)
    edit = prepared_edit(digits, asked, "vary", 0.0, editor_value(pixels))
    assert torch.equal(((last(edit.steps([0])).x[0] + 1) * 127.5).round().to(torch.uint8), pixels)


@pytest.mark.parametrize(
    ("task", "strength", "drawn", "says"),
    [
        ("vary", 0.5, None, "There is no image"),
        ("inpaint", 0.5, {"background": None, "layers": []}, "There is no image"),
        ("inpaint", 0.5, editor_value(torch.zeros(1, 16, 16, dtype=torch.uint8)), "Nothing is painted"),
        ("vary", 2.0, editor_value(torch.zeros(1, 16, 16, dtype=torch.uint8)), "out of range"),
    ],
)
def test_what_cannot_be_edited_is_a_sentence(
    digits: Model, task: str, strength: float, drawn: dict | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        prepared_edit(digits, Request(run="digits", label=NO_CLASS), task, strength, drawn)
