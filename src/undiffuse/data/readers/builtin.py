"""Datasets that are known by name: digits (scikit-learn), CIFAR-10 and Oxford Flowers-102 (torchvision)."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10, Flowers102
from torchvision.datasets.utils import check_integrity

from undiffuse.data.readers.folder import files_source
from undiffuse.data.source import Source, SourceImage
from undiffuse.utils.downloads import is_reachable
from undiffuse.utils.names import Split

OFFLINE_SECONDS = 2
"""How long a dataset's server may take to answer before it counts as out of reach: imports take up to 8 s of ten."""


def digits(root: Path, split: Split) -> Source:
    """1,797 handwritten digits, 8x8, grayscale, that come with scikit-learn (Alpaydin & Kaynak 1998): no download."""
    from sklearn.datasets import load_digits

    if split not in ("auto", "all"):
        raise ValueError(f"digits has no split {split}: leave --split out.")
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.tolist()
    names = [f"digit-{i:04d}" for i in range(len(pixels))]
    return _array_source("digits", "all", tuple("0123456789"), pixels, labels, names, [""] * len(names))


def cifar10(root: Path, split: Split) -> Source:
    """60,000 color images of 10 classes, 32x32 (Krizhevsky 2009): 50,000 to train (default), 10,000 to test.

    Raises:
        FileNotFoundError: it is not in `root` and cannot be downloaded.
        ValueError: there is no such split.
    """
    taken = "train" if split == "auto" else split
    if taken == "val":
        raise ValueError("CIFAR-10 has no split val: choose train, test or all.")
    parts = [p for p in ("train", "test") if taken in (p, "all")]
    files = {CIFAR10.filename: CIFAR10.tgz_md5}
    sets = [_obtain(partial(CIFAR10, str(root), train=part == "train"), root, files, CIFAR10.url) for part in parts]
    pixels = np.concatenate([s.data for s in sets])
    labels = [label for s in sets for label in s.targets]
    names = [f"{part}/{i:05d}" for part, s in zip(parts, sets, strict=True) for i in range(len(s))]
    splits = [part for part, s in zip(parts, sets, strict=True) for _ in range(len(s))]
    said = ("CIFAR-10: taking the 50,000 training images (--split all or test for others).",) if split == "auto" else ()
    return _array_source("cifar10", taken, tuple(sets[0].classes), pixels, labels, names, splits, said)


def flowers102(root: Path, split: Split) -> Source:
    """8,189 photos of 102 kinds of flowers (Nilsback & Zisserman 2008): 1,020 train, 1,020 val, 6,149 test.

    Raises:
        FileNotFoundError: it is not in `root` and cannot be downloaded.
    """
    taken = "all" if split == "auto" else split
    folder = root / "flowers-102"
    files = dict(Flowers102._file_dict.values())
    url = Flowers102._download_url_prefix + Flowers102._file_dict["image"][0]
    paths, labels, splits = [], [], []
    for part in [p for p in ("train", "val", "test") if taken in (p, "all")]:
        # A loader that opens nothing: the dataset then gives the path of each image, and its label.
        dataset = partial(Flowers102, str(root), split=part, loader=lambda path: path)
        of_part = _obtain(dataset, folder, files, url)
        for i in range(len(of_part)):
            path, label = of_part[i]
            paths.append(Path(path).relative_to(folder).as_posix())
            labels.append(label)
            splits.append(part)
    said = (
        ["Flowers-102: taking all 8,189 images; its train split alone has 1,020 (--split)."] if split == "auto" else []
    )
    return files_source("flowers102", taken, tuple(Flowers102.classes), folder, paths, labels, splits, said)


NAMED: dict[str, Callable[[Path, Split], Source]] = {"digits": digits, "cifar10": cifar10, "flowers102": flowers102}


def _array_source(
    name: str,
    split: str,
    class_names: tuple[str, ...],
    pixels: np.ndarray,
    labels: list[int],
    names: list[str],
    splits: list[str],
    said: tuple[str, ...] = (),
) -> Source:
    def images() -> Iterator[SourceImage]:
        for i, label in enumerate(labels):
            yield SourceImage(names[i], label, partial(Image.fromarray, pixels[i]), splits[i])

    def content() -> str:
        return hashlib.sha256(pixels.tobytes() + repr(labels).encode()).hexdigest()

    return Source(name, split, class_names, len(labels), images, content, where=name, said=said)


def _obtain(dataset: Callable, folder: Path, files: dict[str, str], url: str):
    """The torchvision dataset, from disk if it is there, else downloaded, its checksum verified by torchvision.

    It is made from `files` in `folder`, which are given with their MD5 checksums.

    Raises:
        FileNotFoundError: neither works; the sentence says what to put where.
    """
    try:
        return dataset(download=False)
    except RuntimeError:
        pass  # Not there, or not whole.
    paths = {name: folder.absolute() / name for name in files}
    missing = [name for name, md5 in files.items() if not check_integrity(str(paths[name]), md5)]
    wanted = missing or list(files)
    what = " and ".join(f"{name} (MD5 {files[name]})" for name in wanted)
    where = " and ".join(str(paths[name]) for name in wanted)
    fix = f"{what} elsewhere and put {'it' if len(wanted) == 1 else 'them'} at {where}."
    if missing and not is_reachable(url, OFFLINE_SECONDS):
        damaged = [paths[name] for name in missing if paths[name].exists()]
        found = f"{damaged[0]} is there, but damaged" if damaged else f"{url} cannot be reached"
        raise FileNotFoundError(f"{found}: download {fix}")
    try:
        return dataset(download=True)
    except (RuntimeError, OSError, EOFError, HTTPException) as error:
        reason = str(error).rstrip(".")
        raise FileNotFoundError(f"{url} could not be downloaded ({reason}): get {fix}") from error
