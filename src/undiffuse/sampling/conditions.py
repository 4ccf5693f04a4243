"""What a model is told in sampling: from labels, attributes and other images, as a caller gives them, to conditions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from undiffuse.config import Config
from undiffuse.data.given_images import GivenLike
from undiffuse.sampling.attributes import Attributes, Stated, conditions_of, find_attributes
from undiffuse.sampling.given import check_told_with_images, find_given, with_given
from undiffuse.sampling.labels import Label, Pattern, find_pattern, label_tensor, labels_for
from undiffuse.sampling.options import check_guidance
from undiffuse.utils.conditions import NO_LABEL, Condition, as_conditions

Labels = Label | Sequence[Label] | Tensor | None
"""One for all images or a mix that seeds take in turn, or one for each image; None: see `find_labels`."""


def conditions_for(
    config: Config, seeds: Sequence[int], label: Labels, attributes: Attributes, condition: GivenLike | None
) -> Condition:
    """All that a network of this config is told of the images of these seeds.

    Raises:
        ValueError: an option is out of range, or the network cannot be told that.
    """
    stated = stated_for(config, attributes, seeds)
    told = conditions_of(config, _labels(config, seeds, label), stated, seeds)
    given = find_given(config, condition)
    labels = as_conditions(told).label
    check_told_with_images(config, given, labels is not None and bool((labels != NO_LABEL).any()))
    # In a folder they are taken in turn by seed; in a list or an array the first is for the first image.
    turns = seeds if isinstance(condition, str | Path) else range(len(seeds))
    return with_given(told, given, (config.network.image_channels, *config.network.size), turns)


def stated_for(config: Config, attributes: Attributes, seeds: Sequence[int]) -> Stated:
    """The values of each attribute that seeds take in turn.

    Raises:
        ValueError: there is no such attribute or value, or a list has more or fewer values than there are images.
    """
    stated, images = find_attributes(config.attributes, attributes), len(seeds)
    for name, value in attributes.items() if isinstance(attributes, Mapping) else ():
        if not isinstance(value, list | tuple):
            continue
        if len(value) != images:
            raise ValueError(f"{len(value)} values of {name} for {images} images: give one, or one for each image.")
        # The first image has the first value, whatever its seed.
        stated[name] = tuple(stated[name][(turn - seeds[0]) % images] for turn in range(images))
    return stated


def find_labels(config: Config, label: Label | None) -> Pattern | None:
    """The labels that seeds take in turn: see `Model.find_labels`."""
    if label is None and config.class_names and config.image_condition is not None:
        label = "none"
    pattern = None if label is None else find_pattern(config.class_names, label)
    if pattern == tuple(range(len(config.class_names))):
        return None
    if pattern and NO_LABEL in pattern:
        check_guidance(config)
    return pattern


def _labels(config: Config, seeds: Sequence[int], label: Labels) -> list[int] | None:
    if label is None or isinstance(label, int | str):
        return labels_for(config.class_names, seeds, find_labels(config, label))
    each = label_tensor(config.class_names, label, len(seeds))
    if each is not None and bool((each == NO_LABEL).any()):
        check_guidance(config)
    return None if each is None else each.tolist()
