"""Images that a model is told of in sampling: which it needs, and how they become a condition."""

from collections.abc import Sequence

from undiffuse.config import Config
from undiffuse.data.given_images import OPTION, GivenImages, GivenLike, read_given
from undiffuse.data.low_resolution import enlarged, small_size
from undiffuse.data.paths import check_other_images
from undiffuse.utils.conditions import Condition, as_conditions
from undiffuse.utils.text import size_text


def find_given(config: Config, condition: GivenLike | None) -> GivenImages | None:
    """The images that `condition` names, for a model of this config; None for "none", and for a model that needs none.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: an image cannot be read; the model needs images and none are given, or it takes none.
    """
    other = config.image_condition
    if other is None:
        if condition is not None:
            instead = "say --attribute NAME=VALUE instead" if config.attributes else "leave it out"
            raise ValueError(f"--{OPTION}: this model was not trained with other images: {instead}.")
        return None
    if isinstance(condition, str) and condition == "none":
        if config.training.label_dropout == 0:
            raise ValueError(f"--{OPTION} none: this model always saw another image in training (label_dropout 0).")
        return None
    if condition is None:
        raise ValueError(f"{_needed(config)} with --{OPTION} FILE_OR_FOLDER.")
    if isinstance(condition, str):
        check_other_images(condition)
    return read_given(condition, config.network.size, config.data.fit, other.channels, other.factor)


def check_told_with_images(config: Config, given: GivenImages | None, of_class: bool) -> None:
    """Raises ValueError for a class without another image, where the model was never told one alone in training."""
    if config.image_condition is not None and given is None and of_class:
        raise ValueError(
            f"--{OPTION} none: this model never saw a class without another image in training: give --label none too."
        )


def with_given(
    condition: Condition, given: GivenImages | None, shape: tuple[int, int, int], turns: Sequence[int]
) -> Condition:
    """The condition with a given image each, taken in turn, for a model of images (channels, height, width)."""
    if given is None:
        return condition
    return as_conditions(condition)._replace(image=enlarged(given.of(turns), shape[1:]))


def _needed(config: Config) -> str:
    other = config.image_condition
    assert other is not None
    if other.low_res:
        small = size_text(small_size(config.network.size, other.low_res))
        return f"This model enlarges images {other.low_res} times: give it some, best of {small},"
    return f"This model makes images from others, in training those in {other.pairs}: give it some"
