"""What the store records about the original files."""

import json
from pathlib import Path

import pytest
from helpers.making import encoded, noise, opened, save, save_noise, write_tar, write_zip
from PIL import Image

from undiffuse.data import store
from undiffuse.data.paths import read_layout

SPLIT = ("train/a/1.png", "train/b/1.png", "val/a/1.png", "Testing/b/1.png")


def test_a_files_header_is_kept_as_it_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    save(tmp_path / "p" / "1.jpg", noise(0, 20, 40), exif=exif.tobytes())
    save(tmp_path / "p" / "2.png", noise(1, 30, 10, 4))
    save(tmp_path / "p" / "3.gif", noise(2, 12, 14).convert("P"))
    (tmp_path / "p" / "4.png").touch()
    photos = opened(tmp_path / "p", size=(16, 16), channels=1)
    assert [tuple(original) for original in photos.originals()] == [
        ("1.jpg", "", "JPEG", "RGB", 40, 20),
        ("2.png", "", "PNG", "RGBA", 30, 10),
        ("3.gif", "", "GIF", "P", 12, 14),
    ]
    assert photos.names == ["1.jpg", "2.png", "3.gif"]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_each_image_knows_its_split(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        data = save_noise(tmp_path / "p", *SPLIT)
    else:
        members = {name: encoded(noise(i)) for i, name in enumerate(SPLIT)}
        data = (write_zip if kind == "zip" else write_tar)(tmp_path / f"p.{kind}", members)
    splits = {original.name: original.split for original in opened(data, split="all").originals()}
    assert splits == dict(zip(SPLIT, ("train", "train", "val", "test"), strict=True))
    assert {original.split for original in opened(data, split="val").originals()} == {"val"}


def test_without_splits_the_names_of_splits_are_empty() -> None:
    assert read_layout(["a/1.png", "b/1.png"], "all", "here").splits == ["", ""]
    assert read_layout(SPLIT, "train", "here").splits == ["train", "train"]


def test_a_store_of_an_older_format_is_not_read(tmp_path: Path, monkeypatch) -> None:
    folder = save_noise(tmp_path / "p", "1.png", "2.png")
    with monkeypatch.context() as patch:
        patch.setattr(store, "FILES", 2)
        old = opened(folder)
    (old.folder / "00000" / "pixels.u8").rename(old.folder / "pixels.u8")  # As an older version had it.
    new = opened(folder)
    assert new.folder != old.folder
    assert old.folder.exists()
    assert new.names == ["1.png", "2.png"]
    assert new.content == old.content  # Runs that were trained on it can resume.
    assert json.loads((new.folder / "store.json").read_text())["total_images"] == 2
