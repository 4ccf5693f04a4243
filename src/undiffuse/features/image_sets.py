"""Sets of images to measure, as uint8 RGB: from what `--data` can name, from an .npy file, or a run's samples."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from undiffuse.data.decoding import to_channels
from undiffuse.data.source import Source, open_source
from undiffuse.data.store import FORMAT, DataConfig, Store, cache_folder, store_of
from undiffuse.data.survey import survey
from undiffuse.runs.gallery import Gallery
from undiffuse.sampling.model import labels_for
from undiffuse.utils.files import write_atomically
from undiffuse.utils.names import DATASETS, Fit, Split


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, read when they are asked for."""

    name: str
    split: str
    content: str
    """A digest, and how the images were decoded: other pixels, another one."""
    size: tuple[int, int]
    """Height and width."""
    fit: str
    """How they came to that size."""
    total_images: int
    labels: Int[np.ndarray, " n"]
    """-1 for none."""
    class_names: tuple[str, ...]
    read: Callable[[Sequence[int] | np.ndarray], UInt8[np.ndarray, "b h w 3"]]
    dataset: str = ""
    """digits, cifar10 or flowers102 where they are the originals, which a folder of the same name may not hold."""
    channels: int = 3
    """As they are before `read` makes RGB of them: 1 (gray), 3 or 4 (RGBA); a run's samples have their model's."""
    resized: bool = False
    """Whether any of them had another size before it was brought to this one, as far as this program knows."""

    def __len__(self) -> int:
        return self.total_images

    @property
    def what(self) -> str:
        return f"{self.name}, split {self.split}, {self.total_images:,} images"


def chosen(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    """`count` of them, drawn at random by `seed`; all where there are no more."""
    if count is None or count >= len(images):
        return images
    indices = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    return replace(
        images,
        content=f"{images.content}, {count} by seed {seed}",
        total_images=count,
        labels=images.labels[indices],
        read=lambda asked: images.read(indices[np.asarray(asked)]),
    )


def of_store(store: Store, asked: DataConfig) -> ImageSet:
    """The decoded images that were `asked` for; gray ones as RGB, transparent ones on white."""
    height, width = store.size
    # The source's digest alone would be the same for images decoded in gray and in color. Not the store's folder,
    # whose name has the source's in it: the same images in a folder that was moved are still the same.
    decoded = f"{height}x{width}x{store.channels}, {asked.fit}, decoding {FORMAT}"
    return ImageSet(
        name=store.name,
        split=store.split,
        content=f"{store.content}, {decoded}",
        size=store.size,
        fit=asked.fit,
        total_images=len(store),
        labels=store.labels,
        class_names=store.class_names,
        read=lambda indices: _rgb(store.read(indices)),
        dataset=asked.data if asked.data in DATASETS else "",
        channels=store.channels,
        resized=any((original.height, original.width) != store.size for original in store.originals()),
    )


def of_gallery(gallery: Gallery, seeds: Sequence[int], name: str) -> ImageSet:
    """A run's samples, from their files."""
    labels = labels_for(gallery.model, seeds, gallery.label)

    def read(indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return _rgb(gallery.pixels([seeds[int(i)] for i in indices]).permute(0, 2, 3, 1).numpy())

    digest = hashlib.sha256()
    for seed in seeds:
        digest.update(gallery.path(seed).read_bytes())
    return ImageSet(
        name=name,
        split="samples",
        content=digest.hexdigest(),
        size=gallery.model.shape[1:],
        fit="none",
        total_images=len(seeds),
        labels=np.array(labels if labels is not None else [-1] * len(seeds)),
        class_names=gallery.model.class_names,
        read=read,
        channels=gallery.model.shape[0],
    )


@dataclass(frozen=True)
class Asked:
    """Images that a word on the command line names."""

    data: str
    data_root: str | None = None
    split: Split = "auto"
    size: tuple[int, int] | None = None
    fit: Fit = "crop"


def own_size(asked: Asked) -> tuple[int, int] | None:
    """The size that all images of a folder or dataset share, None where they do not."""
    if is_array(asked.data):
        return _array(Path(asked.data).expanduser()).shape[1:3]
    sizes = _sizes(_source(asked))
    if len(sizes) != 1:
        return None
    height, width = next(iter(sizes)).split("x")
    return int(height), int(width)


def open_set(asked: Asked, strict: bool) -> ImageSet:
    """The images at `asked.size`, or at a size that they share, or else at 64x64.

    Raises:
        FileNotFoundError, ValueError: see `open_store`; an .npy file is none of images.
    """
    if is_array(asked.data):
        return _of_array(Path(asked.data).expanduser(), asked.size)
    source, size = _source(asked), asked.size or own_size(asked)
    config = DataConfig(data=asked.data, split=asked.split, size=size, fit=asked.fit, channels=3)
    return of_store(store_of(source, config, strict), config)


def _sizes(source: Source) -> list[str]:
    """The sizes of a source's images, as "HxW"; looked at once, as long as no file changes.

    All headers are read for it, since one image of another size is enough to change what the sizes share.
    """
    key = source.content() if source.signature is None else source.signature()
    file = cache_folder() / f"sizes-{key}.json"
    if not file.exists():
        write_atomically(file, json.dumps(list(survey(source).sizes)))
    return json.loads(file.read_text(encoding="utf-8"))


def is_array(data: str) -> bool:
    return data.lower().endswith(".npy")


def _source(asked: Asked) -> Source:
    where = asked.data if asked.data in DATASETS else str(Path(asked.data).expanduser())
    return open_source(where, asked.data_root, asked.split)


def _array(path: Path) -> np.ndarray:
    """The array in the file, mapped from disk.

    Raises:
        ValueError: it is none of images.
    """
    if path.is_dir():
        raise ValueError(f"{path.absolute()} is a folder, not an array: rename it so that it does not end in .npy.")
    try:
        # Not np.load, which opens archives of arrays and pickles too.
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # The header is parsed as Python, and numpy raises nearly anything at hostile ones.
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise ValueError(f"{path.absolute()} is no array of images ({reason}): save one with numpy.save.") from error
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or array.dtype != np.uint8 or 0 in array.shape:
        raise ValueError(
            f"{path.absolute()} holds {array.dtype} of shape {array.shape}: give uint8 of shape (n, height, width, 3), "
            "pixels rounded to 0 to 255."
        )
    return array


def _of_array(path: Path, size: tuple[int, int] | None) -> ImageSet:
    array = _array(path)
    height, width = array.shape[1:3]
    if size is not None and size != (height, width):
        raise ValueError(
            f"{path.absolute()} holds images of {height}x{width}, but {size[0]}x{size[1]} is measured: arrays are "
            "not resized; save it at that size, or give a folder of images."
        )
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return ImageSet(
        name=path.stem,
        split="all",
        content=content,
        size=(height, width),
        fit="none",
        total_images=len(array),
        labels=np.full(len(array), -1),
        class_names=(),
        read=lambda indices: _rgb(np.array(array[np.asarray(indices)])),
        channels=array.shape[3],
    )


def _rgb(pixels: UInt8[np.ndarray, "b h w c"]) -> UInt8[np.ndarray, "b h w 3"]:
    """Gray three times over, RGBA laid on white as `data.decoding` does it."""
    if pixels.shape[3] == 1:
        return np.repeat(pixels, 3, axis=3)
    if pixels.shape[3] == 4:
        return np.stack([np.asarray(to_channels(Image.fromarray(image), 3)) for image in pixels])
    return pixels
