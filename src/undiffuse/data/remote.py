"""Archives and folders in object storage or on the web, brought to this machine's cache and decoded from there.

Decoded from the cache, every image is downloaded and decoded once, and image n of training depends on the seed and n
alone; MosaicML's StreamingDataset keeps that promise too, but needs a format of its own, and decodes in every epoch.
"""

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from undiffuse.data.paths import REMOTE, cache_folder, is_image, printable, source_name
from undiffuse.utils.files import atomic_path
from undiffuse.utils.terminal import Meter, track

BLOCK_BYTES = 2**24
"""A download that broke off goes on after the last block that came whole."""

THREADS = 16
"""So many files of a folder are downloaded at once."""

VERSION = ("size", "ETag", "etag", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "updated", "mtime")
"""What the various servers tell of an object that changes when it does."""


@dataclass(frozen=True)
class Remote:
    """An archive, or a folder with images, as its server describes it."""

    url: str
    system: Any
    """fsspec's file system."""
    is_folder: bool
    files: Mapping[str, Mapping[str, Any]]
    """What the server tells of the archive, or of each image in the folder, by its path there."""
    targets: Mapping[str, str]
    """Where each goes: the path relative to the archive's or folder's place in the cache."""

    def signature(self) -> str:
        """A digest of what the server tells, without reading any file.

        What it cannot see: a change that leaves an object's size, where the server tells neither a digest nor a time.
        """
        digest = hashlib.sha256(self.url.encode())
        for path, about in sorted(self.files.items()):
            digest.update(repr((path, [str(about.get(name)) for name in VERSION])).encode())
        return digest.hexdigest()

    def fetch(self) -> Path:
        """The archive or folder in the cache. What is there already is not downloaded again.

        Raises:
            FileNotFoundError: the connection broke; what came is kept, and the next call goes on.
            ValueError: it changed meanwhile.
            OSError: writing failed.
        """
        name = source_name(self.url)
        folder = cache_folder() / f"remote-{name}-{self.signature()[:20]}"
        place = folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # Another process may be downloading the same.
            if self.is_folder:
                self._fetch_all({path: place / target for path, target in self.targets.items()}, name)
            elif not place.exists():
                ((path, about),) = self.files.items()
                self._fetch_large(path, about["size"], place)
        return place

    def _fetch_large(self, path: str, size: int, target: Path) -> None:
        unfinished = target.with_name(f"{target.name}.part")
        with open(unfinished, "ab") as file, Meter(f"downloading {target.name}", size) as meter:
            file.truncate(min(file.tell(), size) // BLOCK_BYTES * BLOCK_BYTES)
            done = file.seek(0, os.SEEK_END)
            meter.reach(done, "")
            for block in self._blocks(path, done, size):
                file.write(block)
                file.flush()
                done += len(block)
                meter.reach(done, f"{done / 2**20:,.0f}/{size / 2**20:,.0f} MiB")
            os.fsync(file.fileno())
        if find_remote(self.url).signature() != self.signature():
            unfinished.unlink()
            raise self._changed()
        unfinished.replace(target)

    def _fetch_all(self, targets: Mapping[str, Path], name: str) -> None:
        sizes = {path: target.stat().st_size if target.exists() else None for path, target in targets.items()}
        missing = [path for path, size in sizes.items() if size != self.files[path]["size"]]

        def fetch(path: str) -> None:
            with atomic_path(targets[path], durable=False) as temporary, open(temporary, "wb") as file:
                file.writelines(self._blocks(path, 0, self.files[path]["size"]))

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in track(pool.map(fetch, missing), f"downloading {name}", len(missing)):
                pass
        if missing and find_remote(self.url).signature() != self.signature():
            raise self._changed()

    def _changed(self) -> ValueError:
        return ValueError(f"{printable(self.url)} changed while it was downloaded: run the same command again.")

    def _blocks(self, path: str, start: int, size: int) -> Iterator[bytes]:
        with _explained(self.url):
            remote = self.system.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none")
        with remote:
            for first in range(start, size, BLOCK_BYTES):
                wanted = min(BLOCK_BYTES, size - first)
                with _explained(self.url):
                    remote.seek(first)
                    block = remote.read(wanted)
                    if len(block) != wanted:
                        raise EOFError(f"it ended after {first + len(block):,} of {size:,} bytes")
                yield block


def find_remote(url: str) -> Remote:
    """Asks the server what is at this address.

    Raises:
        FileNotFoundError: nothing, or no images; or it cannot be reached.
        ValueError: the package for it is missing, a name leads out of the folder, or a size is not told.
    """
    with _explained(url):
        system, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        about = system.info(root)
        is_folder = about["type"] == "directory"
        files = system.find(root, detail=True) if is_folder else {root: about}
    shown, targets = printable(url), {}
    for path, each in files.items():
        target = path.removeprefix(f"{root.rstrip('/')}/")
        if is_folder and not is_image(target):
            continue
        if is_folder and (Path(target).is_absolute() or ".." in Path(target).parts):
            raise ValueError(f"{printable(path)} leads out of {shown}: rename or remove it there.")
        if each["size"] is None:
            raise ValueError(f"The server does not tell how large {shown} is: download it, and give the file.")
        targets[path] = target
    if not targets:
        raise FileNotFoundError(f"There are no images in {shown}: give a folder with JPEG or PNG files.")
    return Remote(url, system, is_folder, {path: files[path] for path in targets}, targets)


@contextmanager
def _explained(url: str) -> Generator[None, None, None]:
    """Turns what the various servers' packages raise into one sentence."""
    shown = printable(url)
    try:
        yield
    except ImportError as error:
        package = REMOTE[url.partition("://")[0].lower()]
        raise ValueError(
            f"{shown} cannot be read without another package: pip install 'undiffuse[remote]' {package}".rstrip()
        ) from error
    except Exception as error:
        # fsspec's file system for the web says that nothing is there, whatever went wrong.
        reason = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        if isinstance(error, FileNotFoundError) and not isinstance(error.__cause__, OSError):
            raise FileNotFoundError(f"There is nothing to read at {shown}: check the address.") from error
        said = printable(str(reason)).strip().rstrip(".") or type(reason).__name__
        raise FileNotFoundError(
            f"{shown} could not be downloaded ({said}): check the connection; the same command goes on where it ended."
        ) from error
