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
    def exists(self) -> bool:
        return self.folder.is_dir()

    def pixels(self, size: tuple[int, int], channels: int) -> UInt8[np.ndarray, "n h w c"]:
        """A view of the file, which takes memory only while it is used; there must be an image."""
        return np.memmap(self.folder / "pixels.u8", np.uint8, "r").reshape(-1, *size, channels)

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
            about = json.dumps({"images": total, "skipped": skipped})
            (temporary / "shard.json").write_text(about, encoding="utf-8")
