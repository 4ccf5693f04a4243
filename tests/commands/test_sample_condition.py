"""Making images from others: undiffuse train --condition and sample --condition, and what refuses such models."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import refused
from helpers.making import noise, save
from PIL import Image

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.data.batches import split_held_out
from undiffuse.data.low_resolution import reduced
from undiffuse.data.pixels import to_nchw, to_nhwc
from undiffuse.data.store import DataConfig, open_store

TINY = ["--size", "8", "--images", "128", "--batch", "16", "--set", "network.channels=8", "network.groups=4"]
TINY += ["network.patch=1", "sampling.steps=3", "optimizer.warmup_images=0", "optimizer.decay_fraction=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/low, which enlarges digits four times, and runs/paired, which colors gray photos."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.environ["UNDIFFUSE_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    for i in range(12):
        photo = noise(i)
        save(folder / f"photos/{i:02d}.jpg", photo)
        save(folder / f"gray/{i:02d}.png", photo.convert("L"))
    main(["train", "--condition", "low-res:4", "--out", "runs/low", *TINY])
    main(["train", "--data", "photos", "--condition", "gray", "--out", "runs/paired", "--preset", "digits", *TINY])
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def in_its_folder(trained: Path, monkeypatch: pytest.MonkeyPatch, own_folders: None) -> None:
    monkeypatch.chdir(trained)


def made(folder: Path, seed: int) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{seed:06d}.png")).astype(int)


def test_small_images_are_taken_in_turn_and_recorded(tmp_path: Path) -> None:
    small = [noise(i, 2, 2, 1) for i in range(2)]
    for i, image in enumerate(small):
        save(tmp_path / f"small/{i}.png", image)
    words = ["sample", "low", "--condition", str(tmp_path / "small"), "--label", "3", "--out"]
    main([*words, str(tmp_path / "four"), "--count", "4"])
    main([*words, str(tmp_path / "three"), "--count", "1", "--seed", "3"])
    assert np.abs(made(tmp_path / "four", 3) - made(tmp_path / "three", 3)).max() <= 1
    record = json.loads((tmp_path / "four/samples.json").read_text())
    assert record["given"] == ["0.png", "1.png"]
    assert {path.name for path in (tmp_path / "four").iterdir()} == {
        *(f"{i:06d}.png" for i in range(4)),
        *("grid.png", "sheet.png", "samples.json"),
    }
    in_python = ud.load("low").sample(4, condition=small, label=3)
    assert np.abs(in_python[3, ..., 0].astype(int) - made(tmp_path / "four", 3)).max() <= 1
    later = ud.load("low").sample(1, condition=small[1], label=3, seed=3)
    assert np.abs(later[0].astype(int) - in_python[3].astype(int)).max() <= 1
    other = ud.load("low").sample(4, condition=small[0], label=3)
    assert np.array_equal(other[[0, 2]], in_python[[0, 2]])
    assert not np.array_equal(other[1], in_python[1])
    from_folder = ud.load("low").sample(1, condition=tmp_path / "small", label=3, seed=3)
    assert np.abs(from_folder[0, ..., 0].astype(int) - made(tmp_path / "four", 3)).max() <= 1
    with pytest.raises(ValueError, match="holds samples made with given"):
        ud.sample("low", condition=small[0], label=3, out=tmp_path / "four")


def test_without_a_label_the_class_is_not_known(tmp_path: Path) -> None:
    gallery = ud.sample("low", count=2, condition=noise(0, 2, 2, 1), out=tmp_path / "two")
    assert gallery.labels == (-1,)
    assert ud.sample("low", count=2, condition="none", out=tmp_path / "none").given is None
    for sample in (partial(ud.sample, "low"), ud.load("low").sample):
        with pytest.raises(ValueError, match="never saw a class without another image"):
            sample(count=2, condition="none", label="3")


def test_a_model_says_what_it_needs(capsys: pytest.CaptureFixture) -> None:
    assert "enlarges images 4 times: give it some, best of 2x2, with --condition" in refused(capsys, "sample", "low")
    assert "makes images from others, in training those in" in refused(capsys, "sample", "paired")
    assert "nowhere is not there: give an image" in refused(capsys, "sample", "low", "--condition", "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere is not there: give an image"):
        ud.load("low").sample(condition="nowhere")
    message = refused(capsys, "sample", "digits", "--condition", "gray")
    assert "this model was not trained with other images: leave it out" in message


def test_edits_and_exports_refuse(capsys: pytest.CaptureFixture) -> None:
    message = refused(capsys, "edit", "paired", "vary", "--image", "photos/00.jpg")
    assert "makes images from others and cannot edit" in message
    for to in ("diffusers", "onnx", "web"):
        message = refused(capsys, "export", "low", "--to", to, "target")
        assert "makes images from others and cannot be exported" in message


def test_training_says_what_cannot_be(capsys: pytest.CaptureFixture) -> None:
    assert "low-res:3 does not divide 8x8" in refused(capsys, "train", "--size", "8", "--condition", "low-res:3")
    assert "write low-res:2" in refused(capsys, "train", "--condition", "low-res:x")
    assert "low-res:4 or a table" in refused(capsys, "train", "--condition", "lowres:4")
    resumed = ["train", "--out", "runs/low", *TINY]
    assert "was trained with --condition low-res:4: give that again" in refused(capsys, *resumed)


def test_photos_are_colored_without_the_folder_of_training(trained: Path, tmp_path: Path) -> None:
    (trained / "gray").rename(trained / "moved")
    try:
        gallery = ud.sample("paired", count=3, condition=noise(7, 30, 40), out=tmp_path / "colored")
    finally:
        (trained / "moved").rename(trained / "gray")
    assert gallery.given is not None
    assert gallery.given.pixels.shape == (1, 1, 8, 8)
    assert gallery.pixels([0, 1, 2]).shape == (3, 3, 8, 8)


def test_an_evaluation_makes_images_from_the_real_ones(caplog: pytest.LogCaptureFixture) -> None:
    evaluation = ud.evaluate("low", count=60, features="pixels")
    assert evaluation.made_by["made_from"] == "60 held-out images, in turn"
    folder = next(path.parent for path in Path("runs/low/evaluation").rglob("samples.json"))
    record, store = json.loads((folder / "samples.json").read_text()), open_store(DataConfig(size=(8, 8)))
    _, held_out = split_held_out(len(store), None)
    assert record["label"] == store.labels[held_out[:60]].tolist()
    x0 = to_nchw(store.read(held_out[:1])) / 127.5 - 1
    own = to_nhwc(reduced(x0, 4))
    image = ud.load("low").sample(1, condition=own, label=int(store.labels[held_out[0]]))
    assert np.abs(image[0, ..., 0].astype(int) - made(folder, 0)).max() <= 1
    assert ud.evaluate("paired", count=12, features="pixels").made_by["made_from"] == "12 training images, in turn"
    assert "the very training images" in caplog.text


def test_bits_per_dim_of_what_was_never_trained_are_not_computed() -> None:
    evaluation = ud.evaluate("low", count=20, features="pixels", likelihood=2)
    assert "makes images from others" in str(evaluation.bits_per_dim)


def test_an_evaluation_asks_for_the_pairs_of_training(trained: Path) -> None:
    kept = (trained / "gray/03.png").read_bytes()
    save(trained / "gray/03.png", noise(99).convert("L"))
    try:
        with pytest.raises(ValueError, match="are not those that paired was trained with"):
            ud.evaluate("paired", count=12, features="pixels")
    finally:
        (trained / "gray/03.png").write_bytes(kept)


def test_the_denoiser_sees_the_other_image() -> None:
    model = ud.load("low")
    x, small = torch.zeros(2, *model.shape), [noise(i, 2, 2, 1) for i in range(2)]
    told = model.denoise(x, 1.0, condition=small)
    assert not torch.equal(told[0], told[1])
    torch.testing.assert_close(told[1:], model.denoise(x[:1], 1.0, condition=small[1]))
    untold = model.denoise(x, 1.0)
    assert torch.equal(untold[0], untold[1])


def test_a_guide_is_told_the_same_or_nothing() -> None:
    low, small = ud.load("low"), noise(0, 2, 2, 1)
    guided = low.guided_by(ud.load("low", weights="network"))
    assert guided.sample(1, condition=small, guidance=2.0).shape == (1, 8, 8, 1)
    with pytest.raises(ValueError, match="cannot guide"):
        low.guided_by(ud.load("paired"))
