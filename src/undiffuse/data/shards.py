"""A shard: some gigabytes of a store's images in a folder of their own, whole as soon as it is there."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from undiffuse.data.originals import Original
from undiffuse.utils.errors import Skipped
from undiffuse.utils.files import atomic_path

FILES = ("pixels.u8", "labels.i32", "originals.jsonl")


@dataclass(frozen=True)
class Decoded:
    """What a shard keeps of an image."""

    original: Original
    label: int
    pixels: UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Shard:
    """The images of consecutive positions in the source, without those that cannot be decoded."""

    folder: Path

    @classmethod
    def of(cls, store: Path, number: int) -> "Shard":
        """The shard with this number, from 0, in the folder of a store."""
        return cls(store / f"{number:05d}")

    @property
    def is_whole(self) -> bool:
        """Whether all its files are there, as large as they were written."""
        try:
            about = json.loads((self.folder / "shard.json").read_text(encoding="utf-8"))
            return about["bytes"] == {name: (self.folder / name).stat().st_size for name in FILES}
        except (OSError, ValueError, KeyError):
            return False

    def read(self, indices: Int[np.ndarray, " b"], shape: tuple[int, int, int]) -> UInt8[np.ndarray, "b h w c"]:
        """The pixels of its images with these indices, each of this shape (height, width, channels).

        Raises:
            OSError: the file is shorter than it was.
        """
        # Not mapped: to map a file of gigabytes for each batch costs more than to read the images, and pages of a map
        # that stays would count as this process's memory.
        pixels = np.empty((len(indices), *shape), np.uint8)
        path = self.folder / "pixels.u8"
        with open(path, "rb", buffering=0) as file:
            for image, index in zip(pixels, indices.tolist(), strict=True):
                file.seek(index * image.nbytes)
                if file.readinto(image.data) != image.nbytes:
                    raise OSError(f"{path} has been cut off: delete {self.folder.parent}, and it is made again.")
        return pixels

    def labels(self) -> Int[np.ndarray, " n"]:
        return np.fromfile(self.folder / "labels.i32", "<i4").astype(np.int64)

    def originals(self) -> Iterator[Original]:
        with open(self.folder / "originals.jsonl", encoding="utf-8") as lines:
            for line in lines:
                yield Original(*json.loads(line))

    def counts(self) -> tuple[int, list[tuple[str, str]]]:
        """How many images it holds; the name of each that could not be decoded, and the reason."""
        about = json.loads((self.folder / "shard.json").read_text(encoding="utf-8"))
        return about["images"], [(name, reason) for name, reason in about["skipped"]]

    def write(self, images: Iterable[tuple[str, Decoded | Skipped]]) -> None:
        """Writes the images, each with its name, completely or not at all.

        Raises:
            OSError: writing failed; so does whatever iterating raises. Nothing is left behind.
        """
        total, skipped = 0, []
        with atomic_path(self.folder) as temporary:
            temporary.mkdir()
            with (
                open(temporary / "pixels.u8", "wb") as pixels,
                open(temporary / "labels.i32", "wb") as labels,
                open(temporary / "originals.jsonl", "w", encoding="utf-8") as originals,
            ):
                for name, result in images:
                    if isinstance(result, Skipped):
                        skipped.append((name, result.reason))
                        continue
                    pixels.write(result.pixels.tobytes())
                    labels.write(np.int32(result.label).astype("<i4").tobytes())
                    originals.write(json.dumps(result.original) + "\n")
                    total += 1
            sizes = {name: (temporary / name).stat().st_size for name in FILES}
            about = json.dumps({"images": total, "skipped": skipped, "bytes": sizes})
            (temporary / "shard.json").write_text(about, encoding="utf-8")
