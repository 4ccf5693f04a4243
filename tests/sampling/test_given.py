"""Images that a model is told of: which are asked for, and that each seed has the right one in the right size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from undiffuse.config import Config
from undiffuse.data.given_images import GivenImages
from undiffuse.data.image_condition import ImageConditionConfig
from undiffuse.data.low_resolution import enlarged
from undiffuse.sampling.given import find_given, with_given
from undiffuse.utils.conditions import Conditions

LABELS = torch.tensor([2, 0, 1])


@pytest.fixture
def enlarging(config: Config) -> Config:
    """Of a model that enlarges images of 4x4 pixels to 8x8."""
    return replace(config, image_condition=ImageConditionConfig(low_res=2, channels=1))


def test_seeds_take_given_images_in_turn_enlarged_to_the_size_of_the_model() -> None:
    pixels = torch.arange(2 * 4 * 6, dtype=torch.uint8).view(2, 1, 4, 6) * 5
    told = with_given(LABELS, GivenImages(("a", "b"), pixels), (1, 8, 12), [4, 5, 6])
    assert isinstance(told, Conditions)
    assert told.image is not None
    assert told.image.shape == (3, 1, 8, 12)
    assert torch.equal(told.image, enlarged(pixels[[0, 1, 0]], (8, 12)))
    assert told.label is not None
    assert torch.equal(told.label, LABELS)
    assert with_given(LABELS, None, (1, 8, 12), [4, 5, 6]) is LABELS


def test_small_images_are_given_as_they_are(enlarging: Config) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), np.uint8)
    found = find_given(enlarging, pixels)
    assert found is not None
    assert torch.equal(found.pixels.permute(0, 2, 3, 1), torch.from_numpy(pixels))
    assert found.names == ("image 0", "image 1", "image 2")


def test_none_is_an_answer_and_nothing_is_not(enlarging: Config) -> None:
    assert find_given(enlarging, "none") is None
    with pytest.raises(ValueError, match="enlarges images 2 times: give it some, best of 4x4, with --condition FILE_"):
        find_given(enlarging, None)
    always = replace(enlarging, training=replace(enlarging.training, label_dropout=0.0))
    with pytest.raises(ValueError, match="--condition none: this model always saw another image"):
        find_given(always, "none")


def test_a_model_that_was_never_told_of_images_takes_none(config: Config) -> None:
    assert find_given(config, None) is None
    with pytest.raises(ValueError, match="--condition: this model was not trained with other images: leave it out"):
        find_given(config, "photo.png")
