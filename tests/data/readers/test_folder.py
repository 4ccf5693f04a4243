import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.making import contents, encoded, noise, opened, save, save_noise
from PIL import Image

from undiffuse.data.readers.folder import folder_source
from undiffuse.data.store import cache_folder


def names(folder: Path) -> list[str]:
    return [image.name for image in folder_source(folder).images()]


def test_images_are_found_at_any_depth_and_in_any_case(tmp_path: Path) -> None:
    found = ["A.PNG", "b.Bmp", "deep/er/still/c.TIFF", "deep/d.ppm", "other/e.png"]
    store = opened(save_noise(tmp_path / "photos", *found))
    classes = ["unsorted", "unsorted", "deep", "deep", "other"]
    assert contents(store) == {
        name: (class_name, noise(seed).tobytes())
        for seed, (name, class_name) in enumerate(zip(found, classes, strict=True))
    }
    assert store.skipped == ()


def test_every_kind_of_image_in_one_folder_becomes_rgb(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    blue = Image.new("RGB", (16, 16), (0, 0, 255))
    clear = Image.new("RGBA", (16, 16), (0, 0, 255, 0))
    kinds = {
        "1.png": (Image.new("1", (16, 16), 1), 255),
        "L.png": (Image.new("L", (16, 16), 99), 99),
        "LA.png": (Image.new("LA", (16, 16), (99, 0)), 255),
        "P.gif": (blue.convert("P"), (0, 0, 255)),
        "RGB.bmp": (blue, (0, 0, 255)),
        "RGBA.png": (clear, 255),
        "CMYK.tif": (Image.new("CMYK", (16, 16), (255, 255, 0, 0)), (0, 0, 255)),
        "I16.png": (Image.fromarray(np.full((16, 16), 99 * 257, np.uint16)), 99),
        "F.tif": (Image.fromarray(np.full((16, 16), 0.4, np.float32)), 102),
    }
    for name, (image, _) in kinds.items():
        save(folder / name, image)
    store = opened(folder)
    assert store.channels == 3
    pixels = dict(zip(store.names, store.read(range(len(store))), strict=True))
    assert set(pixels) == set(kinds)
    for name, (_, expected) in kinds.items():
        assert (pixels[name] == expected).all(), name


def test_bad_images_are_named_counted_and_skipped(tmp_path: Path, notices) -> None:
    folder = save_noise(tmp_path / "photos", "good.png", "cats/good.png")
    whole = encoded(noise(2, 64, 64), "JPEG")
    (folder / "cats" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("not an image by its name either")
    store = opened(folder)
    assert store.names == ["cats/good.png", "good.png"]
    assert [name for name, _ in store.skipped] == ["cats/cut.jpg", "empty.png", "text.jpg"]
    reasons = dict(store.skipped)
    assert reasons["cats/cut.jpg"] == "it is cut off"
    assert reasons["text.jpg"] == "not an image, despite its name"
    assert f"Ignored in {folder}: 1 other file: .txt 1." in notices.messages
    assert any("Left out 3 images" in notice and "--strict" in notice for notice in notices.messages)
    for name, reason in store.skipped:
        assert f"  {name}: {reason}" in notices.messages


def test_strict_fails_at_a_bad_image_and_leaves_no_store(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "a.png", "c.png")
    (folder / "b.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"b\.jpg in .*photos cannot be decoded .*--strict") as caught:
        opened(folder, strict=True)
    assert str(folder) in str(caught.value)
    assert not list(cache_folder().glob("*/store.json"))
    opened(folder)
    with pytest.raises(ValueError, match=r"b\.jpg in .*photos cannot be decoded"):
        opened(folder, strict=True)  # A store decoded without --strict does not get around it.
    (folder / "b.jpg").unlink()
    assert len(opened(folder, strict=True)) == 2


def test_the_first_twenty_bad_images_are_named(tmp_path: Path, notices) -> None:
    folder = save_noise(tmp_path / "photos", "good.png")
    for i in range(25):
        (folder / f"{i:02d}.png").write_text("not an image")
    store = opened(folder)
    assert len(store.skipped) == 25
    assert sum(notice.startswith("  ") and ".png" in notice for notice in notices.messages) == 20
    assert "and 5 more" in notices.messages[-1]
    assert "24.png" in Path(notices.messages[-1].split("listed in ")[1]).read_text()


def test_only_bad_images_are_an_error_that_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_text("not an image")
    (folder / "b.png").touch()
    with pytest.raises(ValueError, match=r"None of the 2 images in .* can be decoded \(a\.jpg: .*b\.png: ") as caught:
        opened(folder)
    assert str(folder) in str(caught.value)
    assert not list(cache_folder().glob("*/store.json"))


def test_an_empty_folder_is_an_error_with_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "notes.txt").write_text("text")
    with pytest.raises(ValueError, match=r"contains no images \(1 other file: \.txt 1\)") as caught:
        opened(folder)
    assert str(folder) in str(caught.value)


def test_photos_that_are_not_read_are_named_with_what_to_do(tmp_path: Path, notices) -> None:
    folder = save_noise(tmp_path / "photos", "good.png")
    for name in ("IMG_1.HEIC", "IMG_2.heic", "Thumbs.db", ".hidden.jpg", "README"):
        (folder / name).write_text("not read")
    opened(folder)
    kinds = "5 other files: .heic 2, .db 1, hidden 1, others 1; save photos in .heic as JPEG to have them"
    assert f"Ignored in {folder}: {kinds}." in notices.messages
    (folder / "good.png").unlink()
    with pytest.raises(ValueError, match=r"contains no images \(5 other files.*\.heic as JPEG to have them\): give a"):
        opened(folder)


def test_a_missing_folder_is_an_error_with_its_absolute_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no data at") as caught:
        opened("no/such/folder")
    assert str(tmp_path / "no" / "such" / "folder") in str(caught.value)
    assert not cache_folder().exists()


def test_a_single_image_is_accepted_with_a_notice(tmp_path: Path, notices) -> None:
    store = opened(save_noise(tmp_path / "photos", "cats/only.png"))
    assert contents(store) == {"cats/only.png": (None, noise(0).tobytes())}
    assert any("only one image" in notice for notice in notices.messages)


def test_folders_named_train_and_test_are_splits(tmp_path: Path, notices) -> None:
    folder = save_noise(tmp_path / "photos", "train/a/0.png", "train/b/1.png", "test/b/2.png", "test/c/3.png")
    train, test = opened(folder), opened(folder, split="test")
    assert any("using train" in notice for notice in notices.messages)
    assert train.class_names == test.class_names == ("a", "b", "c")
    assert contents(train) == {"train/a/0.png": ("a", noise(0).tobytes()), "train/b/1.png": ("b", noise(1).tobytes())}
    assert contents(test) == {"test/b/2.png": ("b", noise(2).tobytes()), "test/c/3.png": ("c", noise(3).tobytes())}
    assert contents(opened(folder, split="all")) == {**contents(train), **contents(test)}


def test_links_to_a_file_count_once_under_its_own_name(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "z/own.png", "z/other.png")
    (folder / "a").mkdir()
    (folder / "a" / "link.png").symlink_to(folder / "z" / "own.png")
    (folder / "a" / "relative.png").symlink_to("../z/own.png")
    (folder / "z" / "before.png").symlink_to("own.png")
    (folder / "again").symlink_to("z")
    assert names(folder) == ["z/other.png", "z/own.png"]


def test_hard_links_count_once(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "b.png")
    os.link(folder / "b.png", folder / "a.png")
    os.link(folder / "b.png", folder / "c.png")
    assert names(folder) == ["a.png"]


def test_copies_count_as_separate_images(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a.png", "b.png"):
        save(folder / name, noise(0))
    assert names(folder) == ["a.png", "b.png"]


def test_links_out_of_the_folder_are_followed(tmp_path: Path) -> None:
    elsewhere = save_noise(tmp_path / "elsewhere", "x.png", "y.png")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cats").symlink_to(elsewhere)
    (folder / "one.png").symlink_to(elsewhere / "x.png")
    assert len(names(folder)) == 2
    assert "cats/y.png" in names(folder)


def test_circular_links_are_safe(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "a/b/1.png", "a/2.png")
    (folder / "a" / "b" / "up").symlink_to(folder)
    (folder / "a" / "self").symlink_to(".")
    assert names(folder) == ["a/2.png", "a/b/1.png"]


def test_broken_links_are_named_as_bad(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "good.png")
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "nowhere").symlink_to("gone")
    (folder / "circle.png").symlink_to("circle.png")
    store = opened(folder)
    assert store.names == ["good.png"]
    assert sorted(name for name, _ in store.skipped) == ["circle.png", "nowhere.png"]
    assert dict(store.skipped)["nowhere.png"] == "a broken link, or a file that no longer exists"


def test_a_link_to_the_folder_itself_can_be_given(tmp_path: Path) -> None:
    save_noise(tmp_path / "photos", "cats/a.png", "dogs/b.png")
    (tmp_path / "link").symlink_to("photos")
    assert contents(opened("link")) == contents(opened("photos"))


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    hidden = [".thumb.png", ".git/a.png", "__MACOSX/cats/._a.png", "cats/.cache/b.png"]
    folder = save_noise(tmp_path / "photos", "cats/a.png", *hidden)
    assert names(folder) == ["cats/a.png"]


def test_a_link_to_hidden_images_shows_them(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", ".store/cats/1.png", ".store/2.png")
    (folder / "cats").symlink_to(".store/cats")
    (folder / "two.png").symlink_to(".store/2.png")
    assert names(folder) == ["cats/1.png", "two.png"]


def test_a_hidden_folder_can_be_given(tmp_path: Path) -> None:
    assert names(save_noise(tmp_path / ".photos" / ".new", "a.png")) == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_named_like_an_image_is_ignored(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "a.png")
    os.mkfifo(folder / "b.png")
    (folder / "c.png").symlink_to("b.png")
    (folder / "folder.png").mkdir()
    assert opened(folder).names == ["a.png"]


def test_names_may_be_any_text(tmp_path: Path) -> None:
    odd = ["[a]*?/b [1].png", "日本語/ü ñ 🙂.png", "quote'\"/semi;colon.png", "%20/&amp;<b>.png", "-dash/--x.png"]
    store = opened(save_noise(tmp_path / "photos [2024] (*)", *odd))
    assert set(store.names) == set(odd)
    assert store.class_names == tuple(sorted(name.split("/")[0] for name in odd))


@pytest.mark.skipif(sys.platform != "linux", reason="on other systems file names are text")
def test_names_may_be_bytes_that_are_not_text(tmp_path: Path, notices) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    odd = [os.fsdecode(name) for name in (b"\xff\xfe/1.png", b"caf\xe9/2.png", b"esc\x1b[31m\n/3.png")]
    save_noise(folder, *odd)
    (folder / os.fsdecode(b"bad\xff.png")).touch()
    (folder / "notes.txt").touch()
    store = opened(folder)
    assert sorted(store.names) == ["caf�/2.png", "esc�[31m�/3.png", "��/1.png"]
    assert store.class_names == ("caf�", "esc�[31m�", "unsorted", "��")
    assert [name for name, _ in store.skipped] == ["bad�.png"]
    for text in [*notices.messages, *store.names, *store.class_names]:
        assert text.isprintable()
        text.encode("utf-8")


def test_an_image_that_claims_to_be_enormous_is_skipped(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    folder = save_noise(tmp_path / "photos", "good.png")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (folder / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    store = opened(folder)
    assert store.names == ["good.png"]
    ((name, reason),) = store.skipped
    assert name == "bomb.png"
    assert "it claims 3,600 megapixels, more than the 80" in reason


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "good.png")
    save(folder / "script.eps", noise(1))
    (folder / "script.eps").rename(folder / "script.jpg")
    store = opened(folder)
    assert store.skipped == (("script.jpg", "not an image, despite its name"),)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_an_error_with_its_path(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "a.png", "secret/b.png")
    (folder / "secret").chmod(0)
    with pytest.raises(ValueError, match="secret cannot be read: change its permissions"):
        folder_source(folder)


def test_a_folder_with_the_longest_name_works(tmp_path: Path) -> None:
    for name in ("n" * 255, "日" * 85):
        assert len(opened(save_noise(tmp_path / name, "a.png"))) == 1


@pytest.mark.slow
def test_the_cifar10_folder_is_read_whole(real_data: Path) -> None:
    for split, total in (("auto", 50_000), ("test", 10_000)):
        source = folder_source(real_data / "cifar10", split)
        labels = np.array([image.label for image in source.images()])
        assert source.total_images == len(labels) == total
        assert len(source.class_names) == 10
        assert (np.bincount(labels) == total // 10).all()
