"""Stores of several shards: built by several processes, broken off and gone on with, read like a single one."""

import errno
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.making import contents, encoded, files_of, noise, opened, save_noise, write_tar, write_zip

from undiffuse.data import building, store
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.open import open_source
from undiffuse.data.store import DataConfig, cache_folder, open_store
from undiffuse.utils.files import remove
from undiffuse.utils.world import init_distributed


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven images of 16x16 in color."""
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 16 * 16 * 3)


def photos_with_bad_ones(folder: Path) -> Path:
    """40 images in three classes; some cannot be decoded, among them all of the second shard of seven."""
    save_noise(folder, *(f"{i // 14}/{i:02d}.png" for i in range(40)))
    for i in (0, *range(7, 14), 20, 39):
        (folder / f"{i // 14}" / f"{i:02d}.png").write_bytes(b"no image")
    return folder


def test_shards_change_nothing_that_is_read(tmp_path: Path, monkeypatch) -> None:
    folder = photos_with_bad_ones(tmp_path / "photos")
    whole = opened(folder)
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 16 * 16 * 3)
    sharded = opened(folder)
    assert (whole.starts, sharded.starts) == ((0,), (0, 6, 6, 12, 19, 26))
    assert contents(sharded) == contents(whole)
    assert list(sharded.originals()) == list(whole.originals())
    assert (sharded.skipped, len(sharded), sharded.content) == (whole.skipped, len(whole), whole.content)
    assert len(whole.skipped) == 10
    order = np.random.default_rng(0).integers(0, len(whole), 100)
    assert (sharded.read(order) == whole.read(order)).all()
    assert sharded.read([]).shape == (0, 16, 16, 3)
    os.truncate(sharded.folder / "00003" / "pixels.u8", 16 * 16 * 3 * 6)
    with pytest.raises(OSError, match=r"pixels\.u8 has been cut off: delete .*, and it is made again"):
        sharded.read([12, 18])
    for outside in (-1, len(whole)):
        with pytest.raises(IndexError):
            sharded.read([0, outside])


def test_image_n_of_training_does_not_depend_on_the_shards(tmp_path: Path, monkeypatch) -> None:
    folder = photos_with_bad_ones(tmp_path / "photos")
    whole = opened(folder)
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 16 * 16 * 3)
    streams = [ImageStream(each, AugmentationConfig(flip=True), 0.3, 0) for each in (whole, opened(folder))]
    for first in (0, len(whole) - 5, 1_000_000):
        one, other = (stream.__getitems__(list(range(first, first + 10))) for stream in streams)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def start_slowly(photos: Path, seconds: float) -> int:
    """A process that opens the photos and takes `seconds` to decode each."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        decode = building.decode

        def slowly(image, *options):
            time.sleep(seconds)
            return decode(image, *options)

        setattr(building, "decode", slowly)  # noqa: B010
        opened(photos)
        code = 0
    finally:
        os._exit(code)


def test_a_build_that_is_killed_goes_on_with_the_first_shard_that_is_missing(
    tmp_path: Path, decoded: list, small_shards, monkeypatch
) -> None:
    folder = photos_with_bad_ones(tmp_path / "photos")
    unbroken = files_of(opened(folder))
    decoded.clear()
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(tmp_path / "another-cache"))

    def finished() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in cache_folder().glob("*/0000?/pixels.u8")}

    for target in (1, 3, 4):
        pid = start_slowly(folder, 0.02)
        before = finished()
        while len(finished()) < target:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert finished().items() >= before.items(), "a finished shard was built again"
    assert not list(cache_folder().rglob("store.json"))
    before = finished()
    resumed = opened(folder)
    assert files_of(resumed) == unbroken
    assert finished().items() >= before.items()
    assert len(decoded) == len(resumed) - sum(resumed.starts[len(before) :][:1])


def test_strict_holds_in_every_shard(tmp_path: Path, small_shards) -> None:
    folder = save_noise(tmp_path / "photos", *(f"{i:02d}.png" for i in range(20)))
    (folder / "17.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"17\.png in .*photos cannot be decoded"):
            opened(folder, strict=True)
    assert len(list(cache_folder().rglob("pixels.u8"))) == 2  # What was finished is kept.
    assert len(opened(folder)) == 19
    with pytest.raises(ValueError, match=r"17\.png in .*photos cannot be decoded"):
        opened(folder, strict=True)


@pytest.mark.parametrize("kind", ["digits", "folder", "zip", "tar", "tar.gz", "array"])
def test_any_range_of_a_source_can_be_read(tmp_path: Path, kind: str) -> None:
    names = [f"{'folder/' * 20}{i % 2}/{'n' * 90}-{i}.png" for i in range(9)] + ["notes.txt", "0/last.png"]
    members = {name: encoded(noise(i)) for i, name in enumerate(names)}
    data: Path | str | np.ndarray = kind
    if kind == "folder":
        data = save_noise(tmp_path / "photos", *[name for name in names if name.endswith(".png")])
    elif kind == "array":
        data = np.stack([np.asarray(noise(i)) for i in range(9)])
    elif kind != "digits":
        data = (write_zip if kind == "zip" else write_tar)(tmp_path / f"photos.{kind}", members)
    source = open_source(data)

    def read(*positions: int) -> list[tuple[str, int, bytes]]:
        return [(image.name, image.label, image.open().tobytes()) for image in source.images(*positions)]

    everything = read()
    assert len(everything) == source.total_images
    for start, stop in ((0, 1), (1, 4), (3, 3), (4, len(everything)), (7, len(everything) + 5)):
        assert read(start, stop) == everything[start:stop]


def fork(rank: int, port: int, photos: Path, left: Path) -> int:
    """Opens the photos as one of four processes on two machines, and leaves in files what it decoded and got."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        names = {"RANK": rank, "LOCAL_RANK": rank % 2, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in names.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "UNDIFFUSE_CACHE": str(left / f"cache-{rank // 2}")}
        decode, decoded = building.decode, []

        def slowly(image, *options):
            decoded.append(image)
            time.sleep(0.01)  # So that each process gets some shards.
            return decode(image, *options)

        setattr(building, "decode", slowly)  # noqa: B010
        with init_distributed() as world:
            found = open_store(DataConfig(str(photos)), world=world)
        (left / f"decoded-{rank}").write_text(f"{len(decoded)} {found.folder}")
        code = 0
    finally:
        os._exit(code)


def test_the_processes_of_each_machine_share_the_decoding(tmp_path: Path, small_shards) -> None:
    folder = photos_with_bad_ones(tmp_path / "photos")
    alone = opened(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [fork(rank, port, folder, tmp_path) for rank in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes] == [0, 0, 0, 0]
    left = [(tmp_path / f"decoded-{rank}").read_text().split() for rank in range(4)]
    for first, second in (left[:2], left[2:]):
        assert int(first[0]) > 0
        assert int(second[0]) > 0
        assert int(first[0]) + int(second[0]) == len(alone)  # Nothing twice; the others have no pixels to decode.
        assert first[1] == second[1]
        assert files_of(replace(alone, folder=Path(first[1]))) == files_of(alone)


@pytest.mark.parametrize("lost", ["a shard", "a file", "the end of a file"])
def test_what_is_lost_from_the_cache_is_decoded_again(lost: str, tmp_path: Path, small_shards, decoded: list) -> None:
    folder = photos_with_bad_ones(tmp_path / "photos")
    whole = opened(folder)
    expected = files_of(whole)
    decoded.clear()
    shard = whole.folder / "00003"
    if lost == "a shard":
        remove(shard)
    elif lost == "a file":
        (shard / "labels.i32").unlink()
    else:
        os.truncate(shard / "pixels.u8", 100)
    assert files_of(opened(folder)) == expected
    assert len(decoded) == 7, "one shard"


def test_an_error_of_the_machine_is_not_blamed_on_the_image(tmp_path: Path, small_shards, monkeypatch) -> None:
    folder = photos_with_bad_ones(tmp_path / "photos")
    usual, calls = building.decode, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 12:
            raise OSError(errno.EMFILE, "Too many open files")
        return usual(*arguments)

    monkeypatch.setattr(building, "decode", failing)
    with pytest.raises(OSError, match="Too many open files"):
        opened(folder)
    assert not list(cache_folder().rglob("store.json"))
    assert len(opened(folder)) == 30


def test_images_that_change_before_another_process_decodes_them_are_refused(tmp_path: Path, small_shards) -> None:
    folder = photos_with_bad_ones(tmp_path / "photos")
    plan = store._plan(open_source(folder), DataConfig(data=str(folder), size=(16, 16), channels=3))
    save_noise(folder, "0/new.png")
    with pytest.raises(ValueError, match="changed while they were decoded: run the same command again"):
        building.build_shards(open_source(folder), plan, strict=False)
