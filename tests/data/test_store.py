import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.making import (
    contents,
    encoded,
    files_of,
    noise,
    opened,
    run_python,
    save,
    save_noise,
    start_python,
    write_zip,
)
from pydantic import ValidationError

from undiffuse.data.open import open_source
from undiffuse.data.paths import Layout
from undiffuse.data.readers import folder as folders
from undiffuse.data.store import DataConfig, cache_folder, store_of
from undiffuse.utils.files import UNFINISHED
from undiffuse.utils.validation import sentence

SIX = [f"{kind}/{i}.png" for kind in ("cats", "dogs") for i in range(3)]


def test_pixels_and_labels_are_read_by_index_in_any_order(tmp_path: Path) -> None:
    photos = opened(save_noise(tmp_path / "photos", *SIX))
    assert photos.names == SIX
    assert photos.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(photos) == 6
    indices = [5, 0, 5, 3]
    assert (photos.read(indices) == [np.asarray(noise(i)) for i in indices]).all()
    assert (photos.read(np.array(indices)) == photos.read(indices)).all()
    with pytest.raises(IndexError):
        photos.read([6])


def test_opening_a_store_again_reads_and_decodes_nothing(tmp_path: Path, decoded: list, monkeypatch) -> None:
    folder = save_noise(tmp_path / "photos", *SIX)
    first = opened(folder)
    assert len(decoded) == 6
    # The digest is remembered as long as no file changes.
    monkeypatch.setattr(folders, "_content", lambda *arguments: pytest.fail("the files were read again"))
    assert opened(folder) == first
    assert len(decoded) == 6


def test_the_same_images_elsewhere_are_not_decoded_again(tmp_path: Path, decoded: list) -> None:
    folder = save_noise(tmp_path / "photos", *SIX)
    first = opened(folder)
    copy = tmp_path / "elsewhere" / "photos"
    shutil.copytree(folder, copy)
    shutil.rmtree(folder)
    second = opened(copy)
    assert second == first
    assert contents(second) == contents(first)
    assert len(decoded) == 6


def flip_a_byte(folder: Path) -> None:
    """Flips one byte of a file and keeps its size and modification time."""
    file = folder / "cats" / "1.png"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[0] ^= 0xFF
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def relabel(folder: Path) -> None:
    (folder / "cats" / "2.png").rename(folder / "dogs" / "moved.png")


def rename_class(folder: Path) -> None:
    (folder / "cats").rename(folder / "wolves")


def swap(folder: Path) -> None:
    """The same files with their names swapped."""
    (folder / "cats" / "0.png").rename(folder / "kept")
    (folder / "dogs" / "0.png").rename(folder / "cats" / "0.png")
    (folder / "kept").rename(folder / "dogs" / "0.png")


def add(folder: Path) -> None:
    save(folder / "cats" / "new.png", noise(99))


def remove(folder: Path) -> None:
    (folder / "cats" / "0.png").unlink()


@pytest.mark.parametrize("change", [flip_a_byte, relabel, rename_class, swap, add, remove])
def test_any_change_to_the_files_gives_another_store(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = save_noise(tmp_path / "photos", *SIX)
    first = opened(folder)
    change(folder)
    second = opened(folder)
    assert second.folder != first.folder
    assert second.content != first.content
    assert first.folder.exists()
    if change is not flip_a_byte:
        assert contents(second) != contents(first)
    else:
        assert [name for name, _ in second.skipped] == ["cats/1.png"]


def test_content_depends_on_the_labels(tmp_path: Path) -> None:
    root = save_noise(tmp_path, "a.png", "b.png")

    def content(*labels: int) -> str:
        layout = Layout("all", ("x", "y"), ["a.png", "b.png"], labels, ["", ""])
        return folders.files_source("photos", root, layout).content()

    assert len({content(0, 1), content(1, 0), content(0, 0)}) == 3


@pytest.mark.parametrize(
    "options",
    [{"size": (16, 24)}, {"size": (24, 16)}, {"channels": 1}, {"channels": 4}, {"fit": "pad"}, {"fit": "stretch"}],
)
def test_any_other_option_gives_another_store(tmp_path: Path, options: dict) -> None:
    folder = save_noise(tmp_path / "photos", *SIX)
    first, second = opened(folder), opened(folder, **options)
    assert second.folder != first.folder
    assert second.content == first.content


def test_renamed_classes_have_a_store_of_their_own(tmp_path: Path) -> None:
    """The same images with the same labels, such as a dataset whose names a newer version spells otherwise."""
    source = open_source(str(save_noise(tmp_path / "photos", *SIX)))
    renamed = replace(source, class_names=("birds", "dogs"))
    config = DataConfig(size=(16, 16), channels=3)
    stores = [store_of(lambda each=each: each, config) for each in (source, renamed)]
    assert [store.class_names for store in stores] == [("cats", "dogs"), ("birds", "dogs")]
    assert stores[0].content == stores[1].content


def test_each_split_has_its_own_store(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    assert len({opened(folder, split=split).folder for split in ("train", "test", "all")}) == 3


def test_skipped_images_are_reported_again_from_the_cache(tmp_path: Path, decoded: list, notices) -> None:
    folder = save_noise(tmp_path / "photos", "good.png")
    (folder / "bad.png").touch()
    opened(folder)
    first = list(notices.messages)
    notices.clear()
    opened(folder)
    assert notices.messages == first
    assert any("bad.png" in notice for notice in first)
    assert len(decoded) == 1


@pytest.mark.parametrize("bad", [20, 21, 25])
def test_no_more_than_twenty_skipped_images_are_named(bad: int, tmp_path: Path, notices) -> None:
    folder = save_noise(tmp_path / "photos", "good.png")
    for i in range(bad):
        (folder / f"bad-{i:02}.png").touch()
    store = opened(folder)
    assert sum(notice.startswith("  bad-") for notice in notices.messages) == 20
    more = [notice for notice in notices.messages if "more, all listed in" in notice]
    assert more == ([f"  and {bad - 20} more, all listed in {store.folder / 'store.json'}"] if bad > 20 else [])
    assert len(json.loads((store.folder / "store.json").read_text())["skipped"]) == bad


def test_the_environment_decides_where_the_cache_is(tmp_path: Path, monkeypatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("UNDIFFUSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "undiffuse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "undiffuse"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 2}, "channels 2: Input should be 1, 3 or 4"),
        ({"size": (3, 64)}, "size.0 3: Input should be greater than or equal to 4"),
        ({"size": (64, 5000)}, "size.1 5000: Input should be less than or equal to 4096"),
        ({"fit": "shrink"}, "fit 'shrink': Input should be 'crop', 'pad' or 'stretch'"),
        ({"sizes": (64, 64)}, "unknown setting sizes"),
    ],
)
def test_impossible_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig(**options)
    assert sentence(caught.value) == words


def test_lists_from_json_become_tuples() -> None:
    assert DataConfig(**json.loads('{"size": [16, 24], "channels": 3}')).size == (16, 24)


OPEN_SLOWLY = """
import sys, time
from pathlib import Path
from undiffuse.data import building, store

folder, mine, other, seconds = sys.argv[1:]
decode, decoded = building.decode, 0

def slowly(*arguments):
    global decoded
    decoded += 1
    time.sleep(float(seconds))
    return decode(*arguments)

building.decode = slowly
Path(mine).touch()
while not Path(other).exists():
    time.sleep(0.001)
opened = store.open_store(store.DataConfig(folder))
print("result", decoded, opened.folder, opened.content, len(opened))
"""


def unfinished() -> list[Path]:
    return list(cache_folder().rglob(f"{UNFINISHED}*"))


def test_two_processes_at_once_build_one_whole_store(tmp_path: Path, monkeypatch) -> None:
    folder = save_noise(tmp_path / "photos", *(f"{i % 3}/{i}.png" for i in range(40)))
    ready = [tmp_path / "first", tmp_path / "second"]
    processes = [start_python(OPEN_SLOWLY, folder, *order, 0.01) for order in (ready, ready[::-1])]
    results = []
    for process in processes:
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        results.append(out[out.index("result") :].split())
    assert sorted(int(result[1]) for result in results) == [0, 40]  # One decoded, the other waited.
    assert results[0][2:] == results[1][2:]
    assert unfinished() == []

    shared = opened(folder)
    assert str(shared.folder) == results[0][2]
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(tmp_path / "another-cache"))
    rebuilt = opened(folder)
    assert files_of(shared) == files_of(rebuilt)


def test_a_killed_build_is_never_used_and_is_cleaned_up(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", *(f"{i % 3}/{i}.png" for i in range(60)))
    process = start_python(OPEN_SLOWLY, folder, tmp_path / "ready", tmp_path / "ready", 0.1)
    while not any(file.stat().st_size for file in cache_folder().glob(f"*/{UNFINISHED}*/pixels.u8")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(unfinished()) == 1
    assert not list(cache_folder().glob("*/store.json"))

    photos = opened(folder)
    assert len(photos) == 60
    assert contents(photos) == {f"{i % 3}/{i}.png": (str(i % 3), noise(i).tobytes()) for i in range(60)}
    assert unfinished() == []


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    folder = save_noise(tmp_path / "photos", *SIX)

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", full_disk)
        with pytest.raises(OSError, match="No space left"):
            opened(folder, size=(16, 16), channels=3)
    assert not list(cache_folder().rglob("pixels.u8"))
    assert not list(cache_folder().rglob("store.json"))
    assert len(opened(folder, size=(16, 16), channels=3)) == 6


READ_ALL = """
import sys
import numpy as np
from pathlib import Path
from undiffuse.data.store import DataConfig, open_store

photos = open_store(DataConfig(sys.argv[1], size=(64, 64), channels=4))
order = np.random.default_rng(0).permutation(len(photos))
total = sum(int(photos.read(batch).sum(dtype=np.int64)) for batch in np.array_split(order, len(photos) // 50))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print("result", total, peak.split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    image = encoded(noise(0, 4, 4).resize((64, 64), 0))
    peaks = {}
    for count in (500, 4500):
        archive = write_zip(tmp_path / f"{count}.zip", {f"{i % 10}/{i}.png": image for i in range(count)})
        out = run_python(READ_ALL, archive)
        _, total, peak = out[out.index("result") :].split()
        assert int(total) == count * (int(np.asarray(noise(0, 4, 4), np.int64).sum()) * 256 + 64 * 64 * 255)
        peaks[count] = int(peak)  # In KiB.
    # In memory, 4,000 more images would take 62 MiB, and their names less than one.
    assert peaks[4500] - peaks[500] < 25 * 1024
