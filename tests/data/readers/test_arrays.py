"""Arrays of images in files: as data, and what is told of those that hold anything else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.making import noise, opened, save_noise

from undiffuse.data.readers.arrays import as_images, open_array

RGB = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), np.uint8)


@pytest.mark.parametrize("pixels", [RGB, RGB[..., 0], RGB[..., :1], np.asfortranarray(RGB)], ids=lambda a: str(a.shape))
def test_an_array_is_data(pixels: np.ndarray) -> None:
    np.save("images.npy", pixels)
    np.savez("images.npz", images=pixels)
    np.savez_compressed("packed.npz", images=pixels)
    Path("images.npy").rename("LOUD.NPY")
    for file in ("LOUD.NPY", "images.npz", "packed.npz"):
        store = opened(file)
        assert (store.read(range(4)) == pixels.reshape(4, 16, 24, -1)).all()
        assert (store.name, store.names, store.class_names) == (file, ["0", "1", "2", "3"], ())
        with pytest.raises(ValueError, match=rf"{file} has no split test: give the array of that split"):
            opened(file, split="test")


def test_an_npy_stays_on_the_disk() -> None:
    np.save("images.npy", RGB)
    assert isinstance(open_array(Path("images.npy")).base, np.memmap)


def test_a_folder_may_be_called_like_an_array(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos.npy", "0.png", "1.png")
    assert (opened(folder).read([1])[0] == np.asarray(noise(1))).all()
    with pytest.raises(ValueError, match=r"photos\.npy is a folder, not an array: rename it .* not end in \.npy"):
        open_array(folder)


def test_tensors_have_their_channels_first() -> None:
    for channels in (1, 3, 4):
        pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 6, channels), np.uint8)
        assert (as_images(torch.from_numpy(pixels).permute(0, 3, 1, 2)) == pixels).all()
        assert (as_images(pixels) == pixels).all()
    gray = torch.from_numpy(RGB[..., 0])
    assert (as_images(gray) == RGB[..., :1]).all()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (RGB / 255, r"float64 of shape \(4, 16, 24, 3\): give uint8 .*; convert floats from 0 to 1 with"),
        (RGB.astype(np.int64), r"int64 of shape \(4, 16, 24, 3\): give uint8 .* 0 to 255\.$"),
        (RGB[..., :2], r"uint8 of shape \(4, 16, 24, 2\): give"),
        (RGB[0, 0], r"uint8 of shape \(24, 3\): give"),
        (RGB[None], r"uint8 of shape \(1, 4, 16, 24, 3\): give"),
        (RGB[:0], r"uint8 of shape \(0, 16, 24, 3\): give"),
        (RGB[:, :0], r"uint8 of shape \(4, 0, 24, 3\): give"),
        (np.array(["a photo", "another"]), "it does not hold plain numbers"),
        (np.array([b"a photo", b"another"]), "it does not hold plain numbers"),
        (np.array([0, 1], "datetime64[s]"), "it does not hold plain numbers"),
        (np.zeros(2, [("red", np.uint8), ("green", np.uint8)]), "it does not hold plain numbers"),
        (np.array([{"a": 1}], object), "it holds Python objects, which could run their author's code"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_file_of_anything_else_is_refused_in_one_sentence(array: np.ndarray, says: str, suffix: str) -> None:
    path = Path(f"images.{suffix}")
    (np.save if suffix == "npy" else np.savez)(path, array)
    with pytest.raises(ValueError, match=says) as refusal:
        open_array(path)
    assert str(refusal.value).startswith(str(path.absolute()))
    assert "\n" not in str(refusal.value)


def test_an_npz_of_several_arrays_or_of_none_is_refused() -> None:
    arrays: dict[str, Any] = {}
    for count in range(3):
        np.savez("images.npz", **arrays)
        if count != 1:
            with pytest.raises(ValueError, match=f"it holds {count} arrays, and one is read: save that one"):
                open_array(Path("images.npz"))
        arrays[f"part{count}"] = RGB


def test_an_npz_is_unpacked_only_if_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed("images.npz", images=RGB)
    monkeypatch.setattr("undiffuse.data.readers.arrays.MAX_BYTES", RGB.nbytes)
    assert (open_array(Path("images.npz")) == RGB).all()
    monkeypatch.setattr("undiffuse.data.readers.arrays.MAX_BYTES", RGB.nbytes - 1)
    with pytest.raises(ValueError, match=r"claims 4,608 bytes, .* unpacked into memory: save it as \.npy, or"):
        open_array(Path("images.npz"))


def test_an_array_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    for name in ("images.npy", "images.npz"):
        with pytest.raises(FileNotFoundError):
            open_array(tmp_path / name)
