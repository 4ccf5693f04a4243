"""undiffuse explore"""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from undiffuse.commands import values
from undiffuse.commands.asked import data_config, output
from undiffuse.commands.options import unless_given
from undiffuse.data.source import check_data
from undiffuse.utils.names import Channels, Fit, Split
from undiffuse.utils.terminal import console
from undiffuse.utils.text import duration

if TYPE_CHECKING:
    from undiffuse.data.store import DataConfig, Store
    from undiffuse.exploration.findings import Findings
    from undiffuse.exploration.suggestion import Suggestion, Wanted

MEASURED_IMAGES = 8
"""On a CPU the speed of training is measured on so many images at once."""

MEASURING_SECONDS = 2.0


def explore(
    data: str = "digits",
    data_root: Annotated[str | None, unless_given("data/")] = None,
    split: Split = "all",
    size: Annotated[str | None, unless_given("the images' own up to 64, else 64")] = None,
    fit: Fit = "crop",
    channels: Channels = "auto",
    strict: bool = False,
    seed: int = 0,
    out: Annotated[str | None, unless_given("explored/DATA")] = None,
) -> None:
    """Look at images before training: what there is, what is wrong with it, what noise does to it. Writes a page.

    Unlike train, it looks at all splits together: duplicates across them are what spoils an evaluation.

    Args:
        data: digits, cifar10, flowers102, a folder of images (sub-folders are classes), or a .zip or .tar of images.
        data_root: Where cifar10 and flowers102 lie, or are downloaded to.
        split: Part of the data; auto is what train would take.
        size: FeatureSet in pixels, or height x width as in 48x64.
        fit: How images come to that size: crop the middle, pad with black, or stretch.
        channels: 1 gray, 3 RGB, 4 RGBA; auto: what the images have.
        strict: Fail at an image that cannot be decoded, rather than leave it out and say so.
        seed: Of the samples that are shown, their augmentation and their noise.
        out: Folder for report.html, figures/ and statistics.json.
    """
    sides = values.size(size) if size else None
    check_data(data)

    from undiffuse.data.source import open_source
    from undiffuse.data.store import store_of
    from undiffuse.exploration import findings, report
    from undiffuse.exploration.suggestion import Wanted
    from undiffuse.exploration.summary import summary
    from undiffuse.presets import RECIPES

    began = time.monotonic()
    asked = data_config(data, data_root, split, sides or RECIPES[values.preset(None, data)]().size, fit, channels)
    source = open_source(asked.data, asked.data_root, asked.split)
    folder = output(Path(out) if out else Path("explored") / source.name, data)
    console.print(f"Everything goes to {folder.absolute()}")
    store = store_of(source, asked, strict)
    found, shown = findings.explore(source, store, fit, seed)
    console.print("Measuring how fast this machine trains ...")
    wanted = Wanted(data, sides, fit, _repeated(data_root, split, channels), _trained_on(found, asked))
    found = replace(found, suggestion=_suggestion(found, store, asked, wanted))
    report.write(folder, found, shown)
    for name, value in summary(found):
        console.print(f"{name:<11} {value}")
    console.print(f"Done in {duration(time.monotonic() - began)}. Open {(folder / 'report.html').absolute()}")


def _trained_on(found: "Findings", asked: "DataConfig") -> int:
    """The images that train would take, which is asked for no split unless explore is."""
    from undiffuse.data.source import open_source

    splits = found.inventory.splits
    if asked.split != "all" or not splits:
        return found.inventory.images
    return splits.get(open_source(asked.data, asked.data_root, "auto").split, found.inventory.images)


def _repeated(data_root: str | None, split: Split, channels: Channels) -> tuple[str, ...]:
    """What the suggested command must repeat to take the same images."""
    root = ("--data-root", data_root) if data_root else ()
    part = ("--split", split) if split in ("train", "val", "test") else ()
    return *root, *part, *(("--channels", channels) if channels != "auto" else ())


def _suggestion(found: "Findings", store: "Store", asked: "DataConfig", wanted: "Wanted") -> "Suggestion | None":
    import torch

    from undiffuse.exploration.suggestion import suggest
    from undiffuse.presets import configure
    from undiffuse.training.cost import estimate
    from undiffuse.utils.device import choose_device

    device = choose_device()

    def measure(preset: str, size: tuple[int, int]) -> float:
        config = configure(preset, replace(store, size=size), replace(asked, size=size), seed=0)
        if device.type == "cpu":  # A few images tell as much there, and sooner.
            config = replace(config, training=replace(config.training, microbatch=MEASURED_IMAGES))
        # What else the machine is doing can only slow a measurement down: the quickest is the truest.
        until, seconds = time.monotonic() + MEASURING_SECONDS, [estimate(config, device).seconds_per_image]
        while time.monotonic() < until:
            seconds.append(estimate(config, device).seconds_per_image)
        return min(seconds)

    try:
        return suggest(found.inventory, wanted, store.size, device.type, measure)
    except torch.OutOfMemoryError:
        console.print("Out of memory while measuring, so no first run is suggested: a smaller --size needs less.")
        return None
