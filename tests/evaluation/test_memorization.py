"""The sheet of nearest training images, and when memorization is checked."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.features import context, feature_set, image_set, random_pixels

from undiffuse.evaluation.colors import color
from undiffuse.evaluation.memorization import FeatureMemorization, find_memorization, neighbor_sheet
from undiffuse.utils.errors import Skipped


def checked(samples: np.ndarray, *real: np.ndarray) -> list[FeatureMemorization] | Skipped:
    measurements = context().measure(image_set(samples), [image_set(pixels) for pixels in real])
    return find_memorization(measurements, context())


def test_the_sheet_shows_the_first_and_the_most_suspicious_samples() -> None:
    train, samples = random_pixels(100, seed=0), random_pixels(40, seed=1)
    samples[33] = train[77]
    spaces = checked(samples, train)
    assert not isinstance(spaces, Skipped)
    reverse = replace(spaces[0].found, suspicion=-spaces[0].found.suspicion)
    in_another = replace(spaces[0], found=reverse)  # Which has no say in what is suspicious.
    sheet, shown = neighbor_sheet(image_set(samples), image_set(train), [spaces[0], in_another])
    assert shown[:5] == [0, 1, 2, 3, 4]
    assert shown[5] == 33
    assert spaces[0].found.nearest.index[33] == 77
    # Ten samples side by side and two rows of neighbors below, of 6x6 pixels with gaps of 2 between them and around.
    assert sheet.width / sheet.height == (2 + 10 * 8) / (2 + 3 * 8)


def test_the_control_is_the_held_out_images_if_there_are_any() -> None:
    train, samples, test = (random_pixels(30, seed) for seed in range(3))
    names = []
    for real in ([train], [train, test]):
        spaces = checked(samples, *real)
        assert not isinstance(spaces, Skipped)
        names.append(spaces[0].control)
    assert names == ["training images, each to the next", "held-out real images"]


def test_too_few_images_say_that_they_are_too_few() -> None:
    assert checked(random_pixels(3, seed=0), random_pixels(3, seed=1)) == Skipped(
        "Not checked: there are too few images."
    )


def test_the_colors_are_those_of_all_pixels() -> None:
    pixels = random_pixels(70, seed=0)
    found = color(feature_set(pixels).images)
    assert found.mean == pytest.approx(pixels.reshape(-1, 3).mean(axis=0))
    assert found.sd == pytest.approx(pixels.reshape(-1, 3).std(axis=0))
