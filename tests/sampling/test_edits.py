"""What is measured in the results of an edit says how well it worked."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers.gaussians import gaussian
from helpers.sampling import CPU
from helpers.tensors import normal
from torch import Tensor

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.denoiser import without_variance
from undiffuse.sampling import edits
from undiffuse.sampling.model import Model, last

EULER = SamplingConfig(sampler="euler", steps=4)
IMAGES = to_pixels(normal(2, 1, 8, 8).clamp(-1, 1))


@pytest.fixture
def model(config: Config) -> Model:
    """Of independent pixels, in closed form."""
    return Model(without_variance(gaussian(0.2, 0.5)), replace(config, class_names=()), CPU)


def made(edit: edits.Edit, seeds: list[int]) -> Tensor:
    return to_pixels(last(edit.steps(seeds)).x)


def test_the_round_trip_of_images_is_measured_at_both_ends(model: Model) -> None:
    edit = edits.interpolate_images(model, IMAGES, 3, EULER, None)
    assert [edit.caption(place) for place in range(3)] == ["first again", "50%", "second again"]
    measured = edit.measure(made(edit, [0, 1, 2]))
    assert measured.keys() == {"round_trip_rms_levels"}
    few, many = measured["round_trip_rms_levels"], replace(EULER, sampler="heun", steps=40)
    finer = edits.interpolate_images(model, IMAGES, 3, many, None)
    assert max(finer.measure(made(finer, [0, 1, 2]))["round_trip_rms_levels"]) < 1 < min(few)
    off = torch.stack([IMAGES[0], IMAGES[0], IMAGES[1] ^ 1])
    assert edit.measure(off) == {"round_trip_rms_levels": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("edit", "measured"),
    [
        (lambda m: edits.inpaint(m, IMAGES[0], torch.eye(8, dtype=torch.bool), EULER, None), "known_bytes_that_differ"),
        (lambda m: edits.vary(m, IMAGES[0], EULER, None, strength=0.0), "rms_change_levels"),
    ],
    ids=["inpaint", "vary"],
)
def test_an_image_that_was_kept_measures_as_unchanged(
    edit: Callable[[Model], edits.Edit], measured: str, model: Model
) -> None:
    ready = edit(model)
    assert ready.measure(made(ready, [0, 1])) == {measured: 0}
    assert ready.measure(255 - IMAGES[:1])[measured] > 0


def test_a_small_image_that_was_enlarged_gives_itself_when_it_is_made_small_again(model: Model) -> None:
    exact, small = replace(EULER, sampler="heun", steps=18), to_pixels(normal(1, 4, 4).clamp(-1, 1))
    edit = edits.enlarge(model, small, exact, None)
    assert edit.before[0].caption == "the image, 4x4"
    assert edit.measure(made(edit, [0, 1]))["measurement_rms_levels"] < 10
    doubled = small.repeat_interleave(2, 1).repeat_interleave(2, 2)[None]
    assert edit.measure(doubled)["measurement_rms_levels"] == pytest.approx(0, abs=1e-9)
    assert edit.measure(doubled ^ 4)["measurement_rms_levels"] == pytest.approx(4, abs=1e-9)
