"""What was drawn and chosen, as the model takes it."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from helpers.making import noise
from pydantic import ValidationError

import undiffuse
from undiffuse.data.pixels import to_pixels
from undiffuse.sampling.edit_tasks import TASKS
from undiffuse.sampling.model import Model, last
from undiffuse.studio.drawing import as_read, editor_value, enlarged, painted
from undiffuse.studio.edit_tasks import (
    CHOICES,
    CONTROLS,
    Options,
    prepared_edit,
    request_of,
    tasks_of,
    worsened,
)
from undiffuse.studio.sampling import NO_CLASS, Request


@pytest.fixture(scope="module")
def digits() -> Model:
    return undiffuse.load("digits", device="cpu")


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
    back = as_read(drawn["background"], (channels, height, width))
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
    edit = prepared_edit(digits, asked, Options("inpaint"), drawn)
    made = ((last(edit.steps(asked.seeds)).x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    half = pixels.shape[2] // 2
    assert torch.equal(made[:, :, :, half:], pixels[None, :, :, half:].expand(2, -1, -1, -1))
    assert not torch.equal(made[0, :, :, :half], made[1, :, :, :half])


def test_strength_zero_gives_the_image_back(digits: Model) -> None:
    pixels = digits.sample(1, seed=3, steps=6).to_torch()[0]
    asked = Request(run="digits", label=NO_CLASS, steps=6, count=1)
    edit = prepared_edit(digits, asked, Options("vary", strength=0.0), editor_value(pixels))
    assert torch.equal(((last(edit.steps([0])).x[0] + 1) * 127.5).round().to(torch.uint8), pixels)


def test_two_images_have_a_way_between_them(digits: Model) -> None:
    first, second = digits.sample(2, seed=3, steps=6).to_torch()
    options = Options("interpolate")
    asked = request_of(options, run="digits", label=NO_CLASS, steps=18, count=3)
    edit = prepared_edit(digits, asked, options, editor_value(first), enlarged(second))
    made = to_pixels(last(edit.steps(range(3))).x)
    assert [edit.caption(place) for place in range(3)] == ["first again", "50%", "second again"]
    assert (made[0].int() - first.int()).abs().float().mean() < 8
    assert (made[2].int() - second.int()).abs().float().mean() < 8
    with pytest.raises(ValueError, match="There is no second image"):
        prepared_edit(digits, asked, options, editor_value(first))
    with pytest.raises(ValueError, match="at least 2 images"):
        request_of(options, run="digits", label=NO_CLASS, count=1)


@pytest.mark.parametrize("task", ["deblur", "enlarge"])
def test_what_is_made_of_a_worse_image_gives_it_back_when_made_worse_again(digits: Model, task: str) -> None:
    options = Options(task, factor=2)
    (pixels,) = digits.sample(1, seed=5, steps=6).to_torch()
    worse = worsened(digits, options, pixels)
    assert tuple(worse.shape) == options.shape(digits) == {"deblur": (1, 16, 16), "enlarge": (1, 8, 8)}[task]
    asked = request_of(options, run="digits", label="5", steps=9, count=2)
    edit = prepared_edit(digits, asked, options, editor_value(worse))
    made = to_pixels(last(edit.steps(asked.seeds)).x)
    assert tuple(made.shape) == (2, 1, 16, 16)
    for each in made:
        again = worsened(digits, options, each).float()
        assert (again - worse).square().mean().sqrt() < 6, "of 255 levels"
        unlike = worsened(digits, options, torch.zeros_like(each)).float()
        assert (unlike - worse).square().mean().sqrt() > 20


def test_a_large_image_that_is_to_be_enlarged_is_made_small_first(digits: Model) -> None:
    options = Options("enlarge", factor=4)
    small = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)[:, ::-1]
    image = PIL.Image.fromarray(np.kron(small, np.ones((9, 9), np.uint8)))
    asked = request_of(options, run="digits", label="5", steps=3, count=1)
    edit = prepared_edit(digits, asked, options, {"background": image.convert("RGBA"), "layers": []})
    assert edit.before[0].pixels[0].tolist() == small.tolist()


def test_colors_are_for_models_that_have_them(digits: Model) -> None:
    assert "colorize" not in dict(tasks_of(1)).values()
    assert {*dict(tasks_of(3)).values()} == {*CHOICES} == {*CONTROLS} == {*TASKS}
    asked = Request(run="digits", label="3")
    with pytest.raises(ValueError, match="no color"):
        prepared_edit(digits, asked, Options("colorize"), editor_value(torch.zeros(1, 16, 16, dtype=torch.uint8)))
    color = replace(digits, config=replace(digits.config, network=replace(digits.config.network, image_channels=3)))
    pixels = torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1, 1).expand(3, 16, 16)
    gray = worsened(color, Options("colorize"), pixels)
    assert tuple(gray.shape) == (1, 16, 16)
    assert gray.unique().tolist() == [round(0.587 * 100 + 0.114 * 200)]
    edit = prepared_edit(color, asked, Options("colorize"), editor_value(gray))
    assert torch.equal(edit.before[0].pixels, gray)


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": "paint"},
        {"task": None},
        {"strength": 2.0},
        {"strength": float("nan")},
        {"blur": 0.0},
        {"factor": 1},
        {"factor": 10**9},
        {"noise": -1.0},
        {"noise": "much"},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises((ValueError, ValidationError)):
        Options(**wrong)


BLACK = editor_value(torch.zeros(1, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("task", "drawn", "says"),
    [
        ("vary", None, "There is no image"),
        ("enlarge", {"background": None, "layers": []}, "There is no image"),
        ("inpaint", {"background": None, "layers": []}, "There is no image"),
        ("inpaint", BLACK, "Nothing is painted"),
    ],
)
def test_what_cannot_be_edited_is_a_sentence(digits: Model, task: str, drawn: dict | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prepared_edit(digits, Request(run="digits", label=NO_CLASS), Options(task), drawn)


def test_a_model_that_always_saw_the_class_wants_one(digits: Model) -> None:
    always = replace(digits.config, training=replace(digits.config.training, label_dropout=0.0))
    with pytest.raises(ValueError, match="always saw the class"):
        prepared_edit(replace(digits, config=always), Request(run="digits", label=NO_CLASS), Options("vary"), BLACK)
