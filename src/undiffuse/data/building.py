"""Decodes images into the shards of a store. Any number of processes do it together, and any of them may be killed."""

import errno
import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from filelock import FileLock, Timeout

from undiffuse.data.decoding import decode
from undiffuse.data.image_files import decoding, in_words
from undiffuse.data.originals import original
from undiffuse.data.shards import Decoded, Shard
from undiffuse.data.source import Image, Source
from undiffuse.utils.device import cores_of_a_process
from undiffuse.utils.errors import Skipped
from undiffuse.utils.files import remove, remove_unfinished, write_atomically
from undiffuse.utils.limits import scaled
from undiffuse.utils.names import Fit
from undiffuse.utils.terminal import Meter

OF_THE_MACHINE = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
"""Errors that say nothing about the image: another attempt may succeed, and on another machine it would."""

HELD_BYTES = 64 * 2**20
"""Files of an archive that are read ahead of their turn hold no more than this together."""

WAIT_SECONDS = 0.1
"""How often a process looks whether the others have finished their shards."""


@dataclass(frozen=True)
class Plan:
    """How a source becomes a store: what all processes that build it must agree on."""

    folder: Path
    content: str
    """A digest of the source's images."""
    total_images: int
    """In the source, those that cannot be decoded included."""
    signature: str | None
    """Of the source: see there."""
    shard_images: int
    """So many of them belong to each shard, but the last."""
    size: tuple[int, int]
    fit: Fit
    channels: int

    @property
    def shards(self) -> dict[Shard, range]:
        """The positions in the source that belong to each shard: they do not depend on which images can be decoded."""
        starts = range(0, self.total_images, self.shard_images)
        return {
            Shard.of(self.folder, number): range(start, min(start + self.shard_images, self.total_images))
            for number, start in enumerate(starts)
        }

    @property
    def is_finished(self) -> bool:
        """Whether the store can be opened."""
        return (self.folder / "store.json").exists() and not self.missing()

    def missing(self) -> dict[Shard, range]:
        """The shards that are still to be built."""
        return {shard: positions for shard, positions in self.shards.items() if not shard.is_whole}


def build_shards(source: Source, plan: Plan, strict: bool) -> None:
    """Builds the shards that are missing, together with all processes that do the same; returns when all are there.

    Raises:
        ValueError: with `strict`, an image cannot be decoded; or the source has changed since it was planned.
        OSError: reading or writing failed. Shards that are finished stay, and are not built again.
    """
    if (source.total_images, source.signature and source.signature()) != (plan.total_images, plan.signature):
        raise ValueError(f"The images in {source.where} changed while they were decoded: run the same command again.")
    plan.folder.mkdir(parents=True, exist_ok=True)
    with Meter("decoding images", plan.total_images) as meter:
        while missing := plan.missing():
            meter.reach(*_done(plan))
            if not any(_build(source, plan, *each, strict, meter) for each in missing.items()):
                time.sleep(WAIT_SECONDS)  # Other processes are at work on all of them.


def finish(source: Source, plan: Plan) -> None:
    """Completes a store whose shards are all there: from now on it can be opened.

    Raises:
        ValueError: none of the images can be decoded.
    """
    counts, skipped = [], []
    for shard in plan.shards:
        images, skipped_here = shard.counts()
        counts.append(images)
        skipped += skipped_here
    if not sum(counts):
        first = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise ValueError(
            f"None of the {len(skipped):,} images in {source.where} can be decoded ({first}): "
            "give JPEG or PNG files that other programs can open."
        )
    about = {
        "name": source.name,
        "split": source.split,
        "content": plan.content,
        "total_images": sum(counts),
        "size": plan.size,
        "channels": plan.channels,
        "class_names": source.class_names,
        "skipped": skipped,
        "starts": list(accumulate(counts[:-1], initial=0)),
    }
    write_atomically(plan.folder / "store.json", json.dumps(about))
    for lock in plan.folder.glob("*.lock"):  # Whoever waits for one finds its shard there.
        remove(lock)


def cannot_decode(name: str, reason: str, where: str) -> ValueError:
    return ValueError(f"{name} in {where} cannot be decoded ({reason}): repair or remove it, or leave --strict out.")


def _build(source: Source, plan: Plan, shard: Shard, positions: range, strict: bool, meter: Meter) -> bool:
    """Builds the shard, unless another process has done so or is at it; whether it did."""
    try:
        with FileLock(f"{shard.folder}.lock", blocking=False):
            if shard.is_whole:
                return False
            remove(shard.folder)
            remove_unfinished(plan.folder, shard.folder.name)
            shard.write(_decoded(source, plan, positions, strict, meter))
            return True
    except Timeout:
        return False


def _decoded(
    source: Source, plan: Plan, positions: range, strict: bool, meter: Meter
) -> Iterator[tuple[str, Decoded | Skipped]]:
    """The name of each image in order, with its pixels or the reason why it has none."""
    before, _ = _done(plan)
    for done, (image, result) in enumerate(_in_threads(source, plan, positions), before + 1):
        if strict and isinstance(result, Skipped):
            raise cannot_decode(image.name, result.reason, source.where)
        yield image.name, result
        meter.reach(done, f"{done:,}/{plan.total_images:,}")


def _done(plan: Plan) -> tuple[int, str]:
    """How many images are in finished shards, as a number and a note."""
    done = plan.total_images - sum(map(len, plan.missing().values()))
    return done, f"{done:,}/{plan.total_images:,}"


def _in_threads(source: Source, plan: Plan, positions: range) -> Iterator[tuple[Image, Decoded | Skipped]]:
    """Decodes a few images at once; yields them in order."""
    threads = cores_of_a_process()

    def attempt(image: Image) -> Decoded | Skipped:
        try:
            with image.open() as opened, decoding(opened):
                return Decoded(original(image, opened), image.label, decode(opened, plan.size, plan.fit, plan.channels))
        except Exception as error:  # Hostile bytes make Pillow raise nearly anything; one bad file must not end it all.
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in OF_THE_MACHINE:
                raise
            return Skipped(in_words(error))

    waiting: deque[tuple[Image, Future[Decoded | Skipped]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for image in source.images(positions.start, positions.stop):
            waiting.append((image, pool.submit(attempt, image)))
            # Decoded images, and the files of some, wait in memory, so only a few may.
            while len(waiting) > 4 * threads or sum(each.held_bytes for each, _ in waiting) > scaled(HELD_BYTES):
                first, future = waiting.popleft()
                yield first, future.result()
        for image, future in waiting:
            yield image, future.result()
