"""undiffuse explore"""

import time
from pathlib import Path
from typing import Annotated

from undiffuse.commands.options import unless_given
from undiffuse.data.paths import check_data, source_name
from undiffuse.utils.names import Channels, Fit, Split
from undiffuse.utils.parsing import parse_size
from undiffuse.utils.terminal import loading, log
from undiffuse.utils.text import duration


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
    """Look at images before training: what they contain, what is wrong with them, what noise does. Writes a page.

    Unlike train, it looks at all splits together, because duplicates across them spoil an evaluation.

    Args:
        data: digits, cifar10, flowers102, a folder of images (subfolders are classes), a .zip or .tar of images, or the
            address of one, as in https://host/photos.tar or s3://bucket/photos.
        data_root: Where cifar10 and flowers102 are, or are downloaded to.
        split: Part of the data; auto is what train would use.
        size: Side in pixels, or height x width as in 48x64.
        fit: How images are brought to that size: crop the center, pad with black, or stretch.
        channels: 1 gray, 3 RGB, 4 RGBA; auto: what the images have.
        strict: Fail if an image cannot be decoded, instead of leaving it out.
        seed: Seed for the samples that are shown, their augmentation and their noise.
        out: Folder for report.html, figures/ and statistics.json.
    """
    sides = parse_size(size) if size is not None else None
    check_data(data)

    with loading():
        from undiffuse import api

    began = time.monotonic()
    folder = Path(out or Path("explored") / source_name(data)).expanduser()
    found = api.explore(
        data,
        data_root=data_root,
        split=split,
        size=sides,
        fit=fit,
        channels=channels,
        strict=strict,
        seed=seed,
        out=folder,
        progress=True,
    )
    for name, value in found.summary():
        log.info(f"{name:<11} {value}")
    log.info(f"Done in {duration(time.monotonic() - began)}. Open {(folder / 'report.html').absolute()}")
