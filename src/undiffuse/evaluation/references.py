"""The real images that a run's samples are measured against."""

from dataclasses import dataclass, replace

from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.features.image_sets import DataSpec, ImageSet, of_store, open_set, subset
from undiffuse.runs.run import Run
from undiffuse.utils.errors import Skipped
from undiffuse.utils.names import Split
from undiffuse.utils.terminal import log

INCOMPLETE = Skipped(
    "Not checked: the first real images are not all the images that the model was trained on, so copies of the others "
    "would be missed. Leave out --split and --real-count."
)

UNKNOWN = Skipped(
    "Not checked: whether the model was trained on these images is not known. If it was, give the folder of the "
    "samples: undiffuse measure --real IMAGES --fake SAMPLES treats the real images as training images."
)

SEED = 0
"""Of the choice of reference images, if not all are used."""


@dataclass(frozen=True)
class References:
    """One or two sets of real images."""

    sets: tuple[ImageSet, ...]
    memorization: Skipped | None
    """Why memorization is not checked; None if the first set is all the training images."""
    held_out: Store | None = None
    """Images that the model never saw in training, if there are any."""


def run_references(
    run: Run, split: Split, count: int | None, data_root: str | None = None, strict: bool = False
) -> References:
    """The run's own images; with split `auto` those it was trained on, and the test split if there is one.

    `data_root` is where a named dataset is now, if it has moved since training.

    Raises:
        FileNotFoundError, ValueError: they are not where they were, there is no such split, or the run is imported.
    """
    if not run.config.data_content:
        raise ValueError(
            f"{run.folder.absolute()} holds an imported model, whose training images are not known: name images with "
            "undiffuse evaluate RUN --real."
        )
    data = replace(run.config.data, data_root=data_root or run.config.data.data_root)
    wanted = split if split != "auto" else data.split
    first = open_store(replace(data, split=wanted), strict)
    trained_on = first.content == run.config.data_content
    if wanted == data.split and not trained_on:
        log.warning(f"{first.name} no longer holds the images that {run.folder.absolute()} was trained on.")
    never_seen = wanted not in (data.split, "all") and data.split != "all"
    held_out = first if never_seen else _test_split(data)
    stores = [first] + ([held_out] if split == "auto" and held_out is not None else [])
    sets = tuple(take(of_store(store, data), count, "--real-count") for store in stores)
    complete = trained_on and len(sets[0]) == len(first)
    return References(sets, None if complete else INCOMPLETE, held_out)


def named_references(run: Run, spec: DataSpec, count: int | None, strict: bool) -> References:
    """Images that the user named, brought to the size of the run's samples.

    Raises:
        FileNotFoundError, ValueError: see `open_set`.
    """
    images = open_set(replace(spec, size=run.config.network.size), strict)
    taken, trained_on = take(images, count, "--real-count"), run.config.data_content
    if not trained_on or not images.content.startswith(trained_on):
        return References((taken,), UNKNOWN)
    return References((taken,), None if len(taken) == len(images) else INCOMPLETE)


def take(images: ImageSet, count: int | None, option: str) -> ImageSet:
    """`count` of the images, chosen at random, or all; a notice says so if there are fewer."""
    if count is not None and count > len(images):
        log.warning(f"{option} {count:,}: there are only {images.description}, and all are used.")
    return subset(images, count, SEED)


def _test_split(data: DataConfig) -> Store | None:
    if data.split != "train":
        return None
    try:
        return open_store(replace(data, split="test"))
    except ValueError:  # There is none.
        return None
