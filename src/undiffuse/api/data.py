"""The options for data that several functions share, and folders for results, which must not lie among the images."""

from pathlib import Path

from pydantic import ValidationError

from undiffuse.data.open import DataLike
from undiffuse.data.paths import DATASETS, data_name
from undiffuse.data.store import DataConfig, Store
from undiffuse.utils.names import Channels, Fit, Split
from undiffuse.utils.parsing import parse_size
from undiffuse.utils.validation import sentence
from undiffuse.utils.world import World

SizeLike = int | str | tuple[int, int]
"""64, "64", "48x64" (height x width) or (48, 64)."""


def data_config(
    data: DataLike,
    data_root: str | Path | None,
    split: Split,
    size: SizeLike | None,
    fit: Fit,
    channels: Channels | int,
) -> DataConfig:
    """The options for data, with absolute paths: a run's config must lead to its images from anywhere.

    Raises:
        ValueError: an option is out of range.
    """
    try:
        return DataConfig(
            data=data_name(data),
            data_root=None if data_root is None else str(Path(data_root).expanduser().absolute()),
            split=split,
            size=None if size is None else parse_size(size),
            fit=fit,
            channels=None if channels == "auto" else int(channels),  # ty: ignore[invalid-argument-type]
        )
    except ValidationError as error:
        raise ValueError(sentence(error)) from error


def check_outside(folder: Path, data: DataLike) -> None:
    """Raises ValueError if what is written to `folder` would be read as images of `data` the next time."""
    if not isinstance(data, str | Path) or str(data) in DATASETS:
        return
    images = Path(data).expanduser()
    if folder.resolve().is_relative_to(images.resolve()):
        raise ValueError(
            f"{folder.absolute()} lies among the images in {images.absolute()}, where nothing is written: give --out a "
            "folder elsewhere."
        )


def check_same_images(store: Store, world: World) -> None:
    """Raises ValueError if the processes on another machine opened other images than rank 0."""
    opened = store.content, store.skipped, store.table and store.table.config
    if opened != world.share(opened):
        raise ValueError(f"The images of {store.name} are not the same on all machines: copy them there again.")


def make_output(folder: str | Path, *data: DataLike) -> Path:
    """Makes the folder before the work that ends in it, which may take hours.

    Raises:
        ValueError: it cannot be made, or lies among the images of one of `data`.
    """
    folder = Path(folder).expanduser()
    for images in data:
        check_outside(folder, images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{folder.absolute()} cannot be created ({reason}): give --out another folder.") from error
    return folder
