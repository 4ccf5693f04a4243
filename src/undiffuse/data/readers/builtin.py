"""Datasets known by name: digits (scikit-learn), CIFAR-10 and Oxford Flowers-102 (torchvision).

Each row of `data.paths.DATASETS` is a function of that name here. The two libraries are imported in it: they take
seconds, and few commands read a dataset by name.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path

import numpy as np
import PIL.Image

from undiffuse.data.paths import Layout
from undiffuse.data.readers.folder import files_source
from undiffuse.data.source import Image, Source
from undiffuse.utils.downloads import is_reachable
from undiffuse.utils.names import Split

OFFLINE_SECONDS = 2
"""How long a dataset's server may take to answer. An answer is due within ten seconds; imports take up to eight."""


def digits(root: Path, split: Split) -> Source:
    """1,797 handwritten digits, 8x8, gray, that come with scikit-learn (Alpaydin & Kaynak 1998): no download.

    Raises:
        ValueError: there is no such split.
    """
    if split not in ("auto", "all"):
        raise ValueError(f"digits has no split {split}: leave --split out.")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    names = [f"digit-{i:04d}" for i in range(len(pixels))]
    return _array_source(
        "digits", pixels, Layout("all", tuple("0123456789"), names, bunch.target.tolist(), [""] * len(names))
    )


def cifar10(root: Path, split: Split) -> Source:
    """60,000 color images in 10 classes, 32x32 (Krizhevsky 2009): 50,000 for training (the default), 10,000 for tests.

    Raises:
        FileNotFoundError: it is not in `root` and cannot be downloaded.
        ValueError: there is no such split.
    """
    from torchvision.datasets import CIFAR10

    taken = "train" if split == "auto" else split
    if taken == "val":
        raise ValueError("CIFAR-10 has no split val: choose train, test or all.")
    parts = [part for part in ("train", "test") if taken in (part, "all")]
    files = {CIFAR10.filename: CIFAR10.tgz_md5}
    sets = [_obtain(partial(CIFAR10, str(root), train=part == "train"), root, files, CIFAR10.url) for part in parts]
    layout = Layout(
        split=taken,
        class_names=tuple(sets[0].classes),
        names=[f"{part}/{i:05d}" for part, each in zip(parts, sets, strict=True) for i in range(len(each))],
        labels=[label for each in sets for label in each.targets],
        splits=[part for part, each in zip(parts, sets, strict=True) for _ in range(len(each))],
        notices=("CIFAR-10: using the 50,000 training images (for others, --split test or all).",)
        if split == "auto"
        else (),
    )
    return _array_source("cifar10", np.concatenate([each.data for each in sets]), layout)


def flowers102(root: Path, split: Split) -> Source:
    """8,189 photos of 102 kinds of flowers (Nilsback & Zisserman 2008): 1,020 train, 1,020 val, 6,149 test.

    Raises:
        FileNotFoundError: it is not in `root` and cannot be downloaded.
    """
    from torchvision.datasets import Flowers102

    taken = "all" if split == "auto" else split
    folder = root / "flowers-102"
    files = dict(Flowers102._file_dict.values())
    url = Flowers102._download_url_prefix + Flowers102._file_dict["image"][0]
    paths, labels, splits = [], [], []
    for part in [part for part in ("train", "val", "test") if taken in (part, "all")]:
        # With a loader that opens nothing, the dataset gives the path of each image and its label.
        dataset = partial(Flowers102, str(root), split=part, loader=lambda path: path)
        images = _obtain(dataset, folder, files, url)
        for i in range(len(images)):
            path, label = images[i]
            paths.append(Path(path).relative_to(folder).as_posix())
            labels.append(label)
            splits.append(part)
    notice = "Flowers-102: using all 8,189 images (the train split, --split train, has only 1,020)."
    notices = (notice,) if split == "auto" else ()
    return files_source("flowers102", folder, Layout(taken, tuple(Flowers102.classes), paths, labels, splits, notices))


def _array_source(name: str, pixels: np.ndarray, layout: Layout) -> Source:
    def images(start: int = 0, stop: int | None = None, /) -> Iterator[Image]:
        for (image, label, split), array in zip(layout.rows(start, stop), pixels[start:stop], strict=True):
            yield Image(image, label, partial(PIL.Image.fromarray, array), split)

    def content() -> str:
        return hashlib.sha256(pixels.tobytes() + repr(list(layout.labels)).encode()).hexdigest()

    return Source(
        name=name,
        split=layout.split,
        class_names=layout.class_names,
        total_images=len(layout.names),
        images=images,
        content=content,
        where=name,
        notices=layout.notices,
    )


def _obtain(dataset: Callable, folder: Path, files: dict[str, str], url: str):
    """The torchvision dataset, from disk or else downloaded, with its checksum verified by torchvision.

    `files` are the names of what it consists of in `folder`, each with its MD5 checksum.

    Raises:
        FileNotFoundError: neither works; the message says what to put where.
    """
    from torchvision.datasets.utils import check_integrity

    try:
        return dataset(download=False)
    except RuntimeError:
        pass  # Missing or incomplete.
    paths = {name: folder.absolute() / name for name in files}
    missing = [name for name, md5 in files.items() if not check_integrity(str(paths[name]), md5)]
    needed = missing or list(files)
    what = " and ".join(f"{name} (MD5 {files[name]})" for name in needed)
    where = " and ".join(str(paths[name]) for name in needed)
    fix = f"{what} elsewhere and put {'it' if len(needed) == 1 else 'them'} at {where}."
    if missing and not is_reachable(url, OFFLINE_SECONDS):
        damaged = [paths[name] for name in missing if paths[name].exists()]
        problem = f"{damaged[0]} is damaged" if damaged else f"{url} cannot be reached"
        raise FileNotFoundError(f"{problem}: download {fix}")
    try:
        return dataset(download=True)
    except (RuntimeError, OSError, EOFError, HTTPException) as error:
        reason = str(error).rstrip(".")
        raise FileNotFoundError(f"{url} could not be downloaded ({reason}): get {fix}") from error
