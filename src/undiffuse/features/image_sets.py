"""Sets of images to measure, as uint8 RGB: from data sources, arrays and .npy files, and the samples of runs."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor

from undiffuse.data.open import open_source
from undiffuse.data.paths import DATASETS, DataLike, data_name
from undiffuse.data.pixels import to_nhwc
from undiffuse.data.readers.arrays import as_images
from undiffuse.data.source import NO_CLASS, Source
from undiffuse.data.store import FORMAT, DataConfig, Store, cache_folder, store_of
from undiffuse.data.survey import survey
from undiffuse.features.arrays import find_array, to_rgb
from undiffuse.runs.gallery import Gallery
from undiffuse.utils.files import write_atomically
from undiffuse.utils.limits import cache_key
from undiffuse.utils.names import Fit, Split
from undiffuse.utils.parsing import parse_size
from undiffuse.utils.text import size_text


@dataclass(frozen=True)
class ImageSet:
    """Images of one size; pixels are read when they are needed."""

    name: str
    split: str
    content: str
    """Names the exact pixels: a digest, and how the images were decoded."""
    size: tuple[int, int]
    """Height and width."""
    fit: str
    """How the images were brought to that size."""
    total_images: int
    labels: Int[np.ndarray, " n"]
    """Index in `class_names`; -1 for none."""
    class_names: tuple[str, ...]
    read: Callable[[Sequence[int] | np.ndarray], UInt8[np.ndarray, "b h w 3"]]
    """The pixels of the images with the given indices, as RGB."""
    dataset: str = ""
    """digits, cifar10 or flowers102 for the original dataset, which a folder of the same name may not hold."""
    channels: int = 3
    """Before `read` converts them to RGB: 1 (gray), 3 or 4 (RGBA)."""
    resized: bool = False
    """Whether any image is known to have had another size."""

    def __len__(self) -> int:
        return self.total_images

    @property
    def description(self) -> str:
        """The name, split and number of images."""
        return f"{self.name}, split {self.split}, {self.total_images:,} images"


def subset(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    """`count` of the images, chosen at random by `seed`; all of them if there are no more or `count` is None."""
    if count is None or count >= len(images):
        return images
    chosen = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    return replace(
        images,
        content=f"{images.content}, {count} by seed {seed}",
        total_images=count,
        labels=images.labels[chosen],
        read=lambda indices: images.read(chosen[np.asarray(indices)]),
    )


def of_store(store: Store, config: DataConfig) -> ImageSet:
    """Decoded images, with the options they were decoded with."""
    # The store's digest is of the files alone: the same for images decoded in gray and in color. The store's folder
    # would not do: its name depends on the source's name, and the same images may have been moved.
    decoded = f"{size_text(store.size)}x{store.channels}, {config.fit}, decoding {FORMAT}"
    return ImageSet(
        name=store.name,
        split=store.split,
        content=f"{store.content}, {decoded}",
        size=store.size,
        fit=config.fit,
        total_images=len(store),
        labels=store.labels,
        class_names=store.class_names,
        read=lambda indices: to_rgb(store.read(indices)),
        dataset=config.data if config.data in DATASETS else "",
        channels=store.channels,
        resized=any((original.height, original.width) != store.size for original in store.originals()),
    )


def of_gallery(gallery: Gallery, seeds: Sequence[int], name: str, labels: Sequence[int] | None) -> ImageSet:
    """The samples of these seeds, with these labels, read from their files."""

    def read(indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return to_rgb(to_nhwc(gallery.pixels([seeds[int(i)] for i in indices])))

    digest = hashlib.sha256()
    for seed in seeds:
        digest.update(gallery.path(seed).read_bytes())
    return ImageSet(
        name=name,
        split="samples",
        content=digest.hexdigest(),
        size=gallery.shape[1:],
        fit="none",
        total_images=len(seeds),
        labels=np.array([NO_CLASS] * len(seeds) if labels is None else labels),
        class_names=gallery.class_names,
        read=read,
        channels=gallery.shape[0],
    )


def of_array(images: np.ndarray | Tensor, name: str = "array") -> ImageSet:
    """Images in memory, without labels. Do not change them afterwards: pixels are read when they are needed.

    Args:
        images: uint8, an array `(n, height, width)` or `(n, height, width, channels)`, or a tensor `(n, height, width)`
            or `(n, channels, height, width)`, with 1, 3 or 4 channels.
        name: What messages and reports call it.

    Raises:
        ValueError: another type or shape.
    """
    array = as_images(images)
    height, width, channels = array.shape[1:]
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return ImageSet(
        name=name,
        split="all",
        content=digest.hexdigest(),
        size=(height, width),
        fit="none",
        total_images=len(array),
        labels=np.full(len(array), NO_CLASS),
        class_names=(),
        read=lambda indices: to_rgb(np.array(array[np.asarray(indices)])),
        channels=channels,
    )


@dataclass(frozen=True)
class DataSpec:
    """Images that the user named or passed."""

    data: DataLike
    """Whatever `open_source` takes, uint8 images as `of_array` takes them, or the path of an .npy file."""
    data_root: str | Path | None = None
    split: Split = "auto"
    size: tuple[int, int] | None = None
    fit: Fit = "crop"


def open_set(spec: DataSpec, strict: bool = False) -> ImageSet:
    """The images at `spec.size`, or else at the size that all of them share, or else at 64x64.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: see `open_source`, `open_store` and `of_array`; or an array has another size than `spec.size`.
    """
    array = find_array(spec.data)
    if array is not None:
        path = Path(spec.data).expanduser() if isinstance(spec.data, str | Path) else None
        if spec.size not in (None, array.shape[1:3]):
            raise ValueError(
                f"{path.absolute() if path else 'The array'} holds images of {size_text(array.shape[1:3])}, but "
                f"{size_text(spec.size)} is measured: arrays are not resized; save one at that size, or give a folder "
                "of images."
            )
        return of_array(array, path.stem if path else "array")
    source = open_source(spec.data, spec.data_root, spec.split)
    size = spec.size or _shared_size(source)
    config = DataConfig(data=data_name(spec.data), split=spec.split, size=size, fit=spec.fit, channels=3)
    return of_store(store_of(lambda: source, config, strict), config)


def own_size(spec: DataSpec) -> tuple[int, int] | None:
    """The size that all images share, or None.

    Raises:
        FileNotFoundError, ValueError: see `open_set`.
    """
    array = find_array(spec.data)
    if array is not None:
        return array.shape[1:3]
    return _shared_size(open_source(spec.data, spec.data_root, spec.split))


def _shared_size(source: Source) -> tuple[int, int] | None:
    """The size that all images share, or None. Remembered as long as no file changes.

    Reads the headers of all images, since a single image may have another size.
    """
    key = source.content() if source.signature is None else source.signature()
    file = cache_folder() / f"sizes-{'-'.join([key, *map(str, cache_key())])}.json"
    if not file.exists():
        write_atomically(file, json.dumps(list(survey(source).sizes)))
    sizes = json.loads(file.read_text(encoding="utf-8"))
    if len(sizes) != 1:
        return None
    return parse_size(sizes[0])
