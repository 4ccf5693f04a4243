"""What a run's samples are told in an evaluation: what is told of real images that it did not train on."""

from typing import NamedTuple

from undiffuse.data.batches import split_held_out
from undiffuse.data.conditioned import conditioned
from undiffuse.data.given_images import GivenImages
from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import open_store
from undiffuse.runs.run import Run
from undiffuse.sampling.labels import Pattern
from undiffuse.utils.terminal import log


class OwnConditions(NamedTuple):
    """Those of the same real images, in the same order."""

    given: GivenImages
    labels: Pattern | None
    about: str
    """Which images."""


def own_conditions(run: Run, count: int) -> OwnConditions | None:
    """The other images and labels of at most `count` images: held out from training, where any were.

    None for a run that makes images from nothing but labels.

    Raises:
        FileNotFoundError, ValueError: the run's images, or those that they are paired with, are not where they were.
    """
    config = run.config
    if config.image_condition is None:
        return None
    store = conditioned(open_store(config.data), str(config.image_condition), config.data)
    assert store.image_condition is not None
    if store.image_condition.config.content != config.image_condition.content:
        raise ValueError(
            f"The images in {config.image_condition} are not those that {run.name} was trained with: bring those back."
        )
    training, held_out = split_held_out(len(store), config.training.held_out_images)
    chosen = (held_out if len(held_out) else training)[:count]
    pixels, found = store.image_condition.given(store.read(chosen), chosen)
    chosen, names = chosen[found], store.originals_of(chosen[found].tolist())
    given = GivenImages(tuple(names[i].name for i in chosen.tolist()), to_nchw(pixels[found]))
    if not len(held_out):
        log.warning("No images were held out: samples are made from conditions of the very training images.")
    labels = tuple(store.labels[chosen].tolist()) if config.class_names else None
    return OwnConditions(given, labels, f"{len(chosen):,} {'held-out' if len(held_out) else 'training'} images")
