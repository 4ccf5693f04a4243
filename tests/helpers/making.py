"""Makes image files, folders and archives, and opens them as data."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from undiffuse.data.store import DataConfig, Store, open_store


def noise(seed: int, height: int = 16, width: int = 16, channels: int = 3) -> Image.Image:
    """A random image in mode L, RGB or RGBA, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels.squeeze())


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def save_noise(folder: Path, *names: str) -> Path:
    """Saves images with these names; image n is `noise(n)`."""
    for seed, name in enumerate(names):
        save(folder / name, noise(seed))
    return folder


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def create_tar(path: Path, **options: Any) -> tarfile.TarFile:
    """A .tar open for writing, compressed as its suffix says."""
    compression = {".tar": "", ".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}[path.suffix]
    return tarfile.open(path, f"w:{compression}", **options)  # ty: ignore[no-matching-overload]


def add_to_tar(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with create_tar(path) as archive:
        for name, content in members.items():
            add_to_tar(archive, name, content)
    return path


def opened(data: Path | str, strict: bool = False, **options: Any) -> Store:
    return open_store(DataConfig(str(data), **options), strict)


def contents(store: Store) -> dict[str, tuple[str | None, bytes]]:
    """The class name and pixels of each image, by its name."""
    labels = [store.class_names[label] if label >= 0 else None for label in store.labels]
    pixels = store.read(range(len(store)))
    assert len(set(store.names)) == len(store.names) == len(store)
    return {name: (labels[i], pixels[i].tobytes()) for i, name in enumerate(store.names)}


def files_of(photos: Store) -> dict[str, bytes]:
    """The content of every file of the store, by its path in it."""
    files = [path for path in photos.folder.rglob("*") if path.is_file()]
    return {path.relative_to(photos.folder).as_posix(): path.read_bytes() for path in files}


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts the code in a new process; the arguments are in sys.argv[1:]."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_python(code: str, *arguments: object) -> str:
    """Runs the code in a new process, which must succeed, and returns what it prints."""
    process = start_python(code, *arguments)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return out
