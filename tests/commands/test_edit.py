"""undiffuse edit: every task into a folder, and every mistake in one sentence."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import refused
from PIL import Image

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.sampling.edit_tasks import TASKS

TINY = {"network.channels": 8, "network.groups": 4, "network.multipliers": "[1]", "network.patch": 1}
TINY |= {"network.attention_resolutions": "[]", "training.microbatch": 64}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/photos, in color, without classes, and some images; made once."""
    folder = tmp_path_factory.mktemp("edit")
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (8, 5, 5, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        ud.train(photos, size=8, images=64, out="runs/photos", set=TINY)
    Image.fromarray(photos[0]).resize((30, 20)).save(folder / "photo.jpg")
    Image.fromarray(photos[1]).convert("RGBA").save(folder / "transparent.png")
    Image.linear_gradient("L").resize((40, 40)).save(folder / "gray.png")
    Image.linear_gradient("L").resize((4, 4)).save(folder / "small.png")
    half = Image.new("L", (30, 20))
    half.paste(255, (15, 0, 30, 20))
    half.save(folder / "mask.png")
    Image.new("L", (30, 20)).save(folder / "black.png")
    Image.new("L", (20, 60), 255).save(folder / "tall.png")
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture(autouse=True)
def in_its_folder(trained: Path, monkeypatch: pytest.MonkeyPatch, own_folders: None) -> None:
    monkeypatch.chdir(trained)


WAYS = {
    "inpaint": "--image photo.jpg --mask mask.png --resamplings 2",
    "vary": "--image transparent.png --strength 0.7",
    "interpolate": "--image photo.jpg gray.png --steps 4",
    "colorize": "--image gray.png",
    "deblur": "--image photo.jpg --blur 1.5 --noise 2",
    "enlarge": "--image small.png",
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_fills_a_folder_and_makes_only_what_is_missing(task: str, tmp_path: Path) -> None:
    words = ["edit", "photos", task, *WAYS[task].split(), "--count", "3", "--out", str(tmp_path / "out")]
    words += [] if "--steps" in words else ["--steps", "3"]
    main(words)
    images = sorted((tmp_path / "out").glob("0*.png"))
    assert [path.name for path in images] == ["000000.png", "000001.png", "000002.png"]
    assert Image.open(images[0]).size == (8, 8)
    assert Image.open(tmp_path / "out" / "sheet.png").width > 500
    made_by = json.loads((tmp_path / "out" / "samples.json").read_text())
    measured = json.loads((tmp_path / "out" / "measured.json").read_text())
    assert (made_by["task"], made_by["run"], made_by["images"]) == (task, "photos", 64)
    assert measured["nfe"] > 0
    before = [path.stat().st_mtime_ns for path in images]
    images[1].unlink()
    main(words)
    after = [path.stat().st_mtime_ns for path in images]
    assert (before[0], before[2]) == (after[0], after[2])
    assert before[1] != after[1]


def test_what_is_known_is_kept_and_what_is_white_is_regenerated(tmp_path: Path) -> None:
    edited = ud.edit("photos", "inpaint", image="photo.jpg", mask="mask.png", count=2, steps=3, out=tmp_path / "out")
    assert edited.measured["known_bytes_that_differ"] == 0
    assert edited.measured["nfe"] == 21  # Two steps of ten resamplings, and one.
    unchanged = ud.edit("photos", "vary", image="photo.jpg", strength=0, count=1, out=tmp_path / "same")
    assert unchanged.measured["rms_change_levels"] == unchanged.measured["nfe"] == 0
    result, image = edited.gallery.pixels([0])[0], unchanged.gallery.pixels([0])[0]
    # The mask's right half, cropped as the image is: 30x20 to its middle 20x20.
    assert (result[:, :, :4] == image[:, :, :4]).all()
    assert (result[:, :, 4:] != image[:, :, 4:]).any()
    booleans = np.asarray(Image.open("mask.png")) > 0
    same = ud.edit("photos", "inpaint", image="photo.jpg", mask=booleans, count=1, steps=3, out=tmp_path / "booleans")
    assert (same.gallery.pixels([0])[0] == result).all()


def test_without_out_edits_of_different_images_have_different_folders() -> None:
    one = ud.edit("photos", "vary", image="photo.jpg", count=1, steps=2)
    other = ud.edit("photos", "vary", image=[np.asarray(Image.open("photo.jpg"))[::-1].copy()], count=1, steps=2)
    assert one.gallery.folder.parent == Path("runs/photos/edits")
    assert one.gallery.folder != other.gallery.folder


def test_seeds_are_interpolated_without_an_image(tmp_path: Path) -> None:
    way = ud.edit("digits", "interpolate", seed=3, to_seed=5, count=3, steps=2, label="2", out=tmp_path / "way")
    samples = ud.load("digits").sample(3, seed=3, sampler="ipndm", steps=2, label="2")
    ends = way.gallery.pixels([0, 2]).int() - samples.to_torch()[[0, 2]]
    assert ends.abs().max() <= 1


def test_a_gray_model_and_a_label(tmp_path: Path) -> None:
    vary = partial(ud.edit, "digits", "vary", image="photo.jpg", count=2, steps=2, strength=1.0)
    three = vary(label=3, guidance=2.0, out=tmp_path / "three")
    assert three.measured["nfe"] == 4
    expected = ud.load("digits").sample(2, label=3, guidance=2.0, steps=2)
    assert (three.gallery.pixels([0, 1]) == expected.to_torch()).all()
    assert vary(out=tmp_path / "none").measured["nfe"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nowhere vary --image photo.jpg", "no run at"),
        ("photos vary", "vary needs one image given with --image, not 0"),
        ("photos vary --image photo.jpg gray.png", "vary needs one image given with --image, not 2"),
        ("photos vary --image nothing.jpg", "--image: there is no file at"),
        ("photos vary --image text.png", "is not an image"),
        ("photos vary --image photo.jpg --strength nan", "--strength nan is out of range: give 0 to 1"),
        ("photos vary --image photo.jpg --strength 1.1", "--strength 1.1 is out of range"),
        ("photos vary --image photo.jpg --count 0", "--count 0 is too small"),
        ("photos vary --image photo.jpg --mask mask.png", "--mask does nothing for vary: it is for inpaint"),
        ("photos vary --image photo.jpg --label 3", "trained without classes"),
        ("digits vary --image photo.jpg --guidance 3", "nothing to strengthen"),
        ("digits vary --image photo.jpg --set guidance=3", "nothing to strengthen"),
        ("photos inpaint --image photo.jpg", "inpaint needs --mask: give an image that is white where"),
        ("photos inpaint --image photo.jpg --mask black.png", "--mask has no white"),
        ("photos inpaint --image photo.jpg --mask tall.png", "--mask is 60x20, but the image is 20x30"),
        ("photos inpaint --image photo.jpg --mask text.png", "--mask: "),
        ("photos inpaint --image photo.jpg --mask mask.png --resamplings 0", "--resamplings 0 is too small"),
        ("photos inpaint --image photo.jpg --mask mask.png --sampler ipndm", "multistep and cannot inpaint"),
        ("photos interpolate --image photo.jpg", "needs no image or two images given with --image, not 1"),
        ("photos interpolate --count 1", "--count 1 is too small: give at least 2"),
        ("photos interpolate --sampler ancestral --steps 100", "adds fresh noise"),
        ("photos interpolate --image photo.jpg gray.png --to-seed 3", "--to-seed is for an interpolation of seeds"),
        ("photos interpolate --image photo.jpg gray.png --steps 1", "--steps 1 cannot lead an image back"),
        ("digits colorize --image photo.jpg", "gray images, which have no color"),
        ("photos deblur --image photo.jpg", "deblur needs --blur"),
        ("photos deblur --image photo.jpg --blur inf", "--blur inf is out of range"),
        ("photos deblur --image photo.jpg --blur 1 --noise -1", "--noise -1.0 is out of range"),
        ("photos enlarge --image photo.jpg", "--image is 20x30, not smaller than the 8x8"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(words: str, says: str, capsys: pytest.CaptureFixture) -> None:
    assert says in refused(capsys, "edit", *words.split())


def test_a_folder_of_another_edit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["edit", "photos", "vary", "--image", "photo.jpg", "--count", "1", "--steps", "2", "--out"]
    main([*words, str(tmp_path / "out")])
    assert "made with strength 0.5" in refused(capsys, *words, str(tmp_path / "out"), "--strength", "0.9")
