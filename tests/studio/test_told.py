"""What visitors tell a model besides the class."""

from typing import Any

import PIL.Image
import pytest
import torch
from helpers.making import noise

from undiffuse.sampling.model import last
from undiffuse.studio.drawing import editor_value
from undiffuse.studio.edit_tasks import Options, prepared_edit, sampled
from undiffuse.studio.sampling import NO_CLASS, Request
from undiffuse.studio.told import checked_image, columns_text, example, image_text, stated

BRIGHT = "brightness=200 light=late noon"
BLACK = editor_value(torch.zeros(1, 8, 8, dtype=torch.uint8))


def asked(**wishes: Any) -> Request:
    values: dict[str, Any] = {"run": "mine", "steps": 2, "count": 2, **wishes}
    return Request(**values)


def made(model, image: PIL.Image.Image | None = None, **wishes: Any) -> torch.Tensor:
    return last(asked(**wishes).steps_of(model, image)).x


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("brightness=70", {"brightness": "70"}),
        (" light = late noon, brightness=70*2,30;", {"light": "late noon", "brightness": "70*2,30"}),
        ("brightness=70\nlight=dusk", {"light": "dusk", "brightness": "70"}),
    ],
)
def test_attributes_are_read_up_to_the_next_name(told_config, text: str, values: dict[str, str]) -> None:
    assert stated(told_config("table").attributes, text) == values
    assert stated(None, "left=over") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("size=3", r"^'size=3' is not understood: write each name once, as in brightness=100 light=dusk"),
        ("light=dusk light=dusk", "write each name once"),
        ("brightness=dark", "^brightness=dark is not a number that it can have: .* from 0 to 255"),
        ("light=late moon", "^light=late moon: in training it was never that; did you mean late noon"),
    ],
)
def test_other_attributes_are_refused_without_words_of_the_command_line(told_config, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        stated(told_config("table").attributes, text)


def test_a_run_says_what_it_can_be_told(told_config) -> None:
    table = told_config("table").attributes
    assert columns_text(table) == "brightness (0 to 255), light (dusk, late noon)"
    assert stated(table, example(table))["light"] == "dusk"
    assert image_text(told_config("nothing")) == ""
    assert "enlarges images 4 times, from 2x2" in image_text(told_config("low-res"))
    assert "/photos" not in image_text(told_config("pairs"))


def test_attributes_reach_the_images_and_are_counted(told_model) -> None:
    model = told_model("table")
    bright = made(model, attributes=BRIGHT, guidance=2.0)
    expected = model.sample(2, attributes={"brightness": 200, "light": "late noon"}, guidance=2.0, steps=2)
    assert torch.equal(last(model.steps(2, attributes=BRIGHT.split(" ", 1), guidance=2.0, steps=2)).x, bright)
    assert expected.shape == (2, 8, 8, 1)
    assert not torch.equal(made(model), bright)
    assert asked(attributes=BRIGHT, guidance=2.0).nfe(model) == 4
    assert asked().nfe(model) == 2


@pytest.mark.parametrize("kind", ["low-res", "pairs"])
def test_an_image_makes_others(told_model, kind: str) -> None:
    model = told_model(kind)
    image = noise(3, 2, 2, 1) if kind == "low-res" else noise(3, 8, 8, 1)
    assert torch.equal(made(model, image), last(model.steps(2, condition=image, steps=2)).x)
    assert asked(guidance=2.0).nfe(model, image) == 4
    with pytest.raises(ValueError, match=r"^There is no image to start from, and this run .* drop one\.$"):
        made(model)


def test_an_image_for_another_run_is_left_alone(told_model) -> None:
    model = told_model("nothing")
    assert checked_image(model.config, noise(3)) is None
    assert torch.equal(made(model, noise(3)), made(model))


def test_a_model_that_makes_images_from_others_does_not_edit(told_model) -> None:
    model = told_model("low-res")
    for work in (
        lambda: prepared_edit(model, asked(label=NO_CLASS), Options("vary"), BLACK),
        lambda: sampled(model, asked(label=NO_CLASS), Options("vary")),
    ):
        with pytest.raises(ValueError, match="makes images from others and cannot edit"):
            work()


def test_an_edit_is_told_of_attributes(told_model) -> None:
    model, options = told_model("table"), Options("vary", strength=1.0)

    def edited(attributes: str) -> torch.Tensor:
        each = asked(label=NO_CLASS, attributes=attributes)
        return last(prepared_edit(model, each, options, BLACK).steps(each.seeds)).x

    assert torch.equal(edited(BRIGHT), made(model, attributes=BRIGHT))
    assert torch.equal(edited(""), made(model))
    with pytest.raises(ValueError, match=r"^brightness has 2 values: an edit takes one"):
        edited("brightness=1,2")
    ours = sampled(model, asked(label=NO_CLASS, attributes=BRIGHT), options)
    assert not torch.equal(ours[0], sampled(model, asked(label=NO_CLASS), options)[0])
