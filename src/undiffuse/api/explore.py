"""Exploring images before training."""

from functools import cache
from pathlib import Path

from undiffuse.api.data import SizeLike, check_same_images, data_config, make_output
from undiffuse.api.first_run import FirstRun
from undiffuse.data.open import DataLike, open_source
from undiffuse.data.store import store_of
from undiffuse.exploration.explore import Exploration, explore_store
from undiffuse.presets import RECIPES
from undiffuse.utils.names import Channels, Fit, Split
from undiffuse.utils.parsing import parse_preset, parse_size
from undiffuse.utils.terminal import log, speaking
from undiffuse.utils.world import init_distributed


def explore(
    data: DataLike = "digits",
    *,
    data_root: str | Path | None = None,
    split: Split = "all",
    size: SizeLike | None = None,
    fit: Fit = "crop",
    channels: Channels | int = "auto",
    strict: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    suggest: bool = True,
    progress: bool = False,
) -> Exploration:
    """Looks at images before training: what the data contain, what is wrong with them, what noise does to them.

    Unlike `train`, it looks at all splits together, because duplicates across them spoil an evaluation. Under torchrun
    all processes share the work and get the result; the main one alone writes, and suggests a first run.

    Args:
        data: digits, cifar10, flowers102, a folder of images (sub-folders are classes), a .zip or .tar of images, the
            address of one (https://, s3://, gs://), or a sequence of images or of (image, label) pairs.
        data_root: Where cifar10 and flowers102 are, or are downloaded to; the folder data/ by default.
        split: auto is the split that `train` would use.
        size: Height and width in pixels, as in 64, "48x64" or (48, 64). None: the images' own if they share one up to
            64, else 64.
        fit: How images are brought to that size: crop the center, pad with black, or stretch.
        channels: 1 gray, 3 RGB, 4 RGBA; auto: what the images have.
        strict: Fail if an image cannot be decoded, instead of leaving it out.
        seed: Of the samples that are shown, their augmentation and their noise.
        out: Folder for report.html, figures/ and statistics.json; None writes nothing.
        suggest: Whether the result has a suggestion for a first run. The speed of this machine is measured for it when
            it is first needed, by `write` or by `.suggestion`, which takes a few seconds.
        progress: Shows notices and progress bars.

    Returns:
        The numbers (`.inventory`, `.bad_files`, `.balance`, `.framing`, `.colors`, `.duplicates`, `.noising`,
        `.suggestion`, and all of them as `.to_dict()`), the `.figures` by name, and `.write(folder)`.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: there are no images in it, an option is out of range, `out` cannot be used, or, with `strict`, an
            image cannot be decoded.

    Example:
        found = undiffuse.explore("photos/", size=64)
        found.duplicates.near_pairs
        found.figures["samples"]
        found.write("explored/photos")
    """
    with init_distributed() as world, speaking(progress and world.is_main):
        requested = None if size is None else parse_size(size)
        preset_size = RECIPES[parse_preset(None, data)]().size
        config = data_config(data, data_root, split, requested or preset_size, fit, channels)
        source = cache(lambda: open_source(data, config.data_root, split))
        if world.is_main:
            source()  # What cannot be opened leaves no folder behind.
            if out is not None:
                log.info(f"Everything goes to {make_output(out, data).absolute()}")
        store = store_of(source, config, strict, world)
        check_same_images(store, world)
        first_run = FirstRun(data, data_root, config, requested, store)
        suggests = suggest and world.is_main  # The others would measure this machine while it is measured.
        found = explore_store(source, store, fit, seed, first_run.suggest if suggests else None, world)
        if out is not None:
            world.on_main(lambda: found.write(out))
    return found
