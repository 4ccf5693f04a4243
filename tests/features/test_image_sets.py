"""What can be measured: folders, archives, arrays, datasets and sequences, at one size and in RGB."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers import making
from PIL import Image

from undiffuse.data.store import DataConfig, open_store
from undiffuse.features import image_sets
from undiffuse.features.image_sets import DataSpec, ImageSet, of_array, of_store, open_set, own_size, subset
from undiffuse.report.grids import Images
from undiffuse.utils.names import Fit


def test_images_of_one_size_keep_it(tmp_path: Path) -> None:
    making.save(tmp_path / "large" / "0.png", making.noise(0, 100, 90))
    found = open_set(DataSpec(str(tmp_path / "large")))
    assert found.size == (100, 90)
    assert np.array_equal(found.read([0])[0], np.asarray(making.noise(0, 100, 90)))


def test_images_of_several_sizes_are_resized(tmp_path: Path) -> None:
    for i, side in enumerate((10, 20, 30)):
        making.save(tmp_path / "mixed" / f"{i}.png", making.noise(i, side, side))
    spec = DataSpec(str(tmp_path / "mixed"))
    assert own_size(spec) is None
    assert open_set(spec).size == (64, 64)
    assert open_set(DataSpec(spec.data, size=(12, 12))).read([0, 2]).shape == (2, 12, 12, 3)


def test_one_image_of_another_size_makes_the_set_resized(tmp_path: Path) -> None:
    making.save_noise(tmp_path / "photos", "0.png", "1.png")
    making.save(tmp_path / "photos" / "2.png", making.noise(2, 16, 17))
    assert open_set(DataSpec(str(tmp_path / "photos"), size=(16, 16))).resized


def test_every_form_of_the_same_images_gives_the_same_pixels(tmp_path: Path) -> None:
    images = [making.noise(i) for i in range(3)]
    array = np.stack([np.asarray(image) for image in images])
    np.save(tmp_path / "array.npy", array)
    making.save_noise(tmp_path / "folder", "0.png", "1.png", "2.png")
    making.write_zip(tmp_path / "zipped.zip", {f"{i}.png": making.encoded(p) for i, p in enumerate(images)})
    paths = [str(tmp_path / "array.npy"), tmp_path / "folder", str(tmp_path / "zipped.zip")]
    for data in [*paths, images, array, Images(array), Images(array).to_torch()]:
        spec = DataSpec(data)
        assert own_size(spec) == (16, 16)
        assert np.array_equal(open_set(spec).read([2, 0]), array[[2, 0]])


def test_a_sequence_of_pairs_has_classes() -> None:
    found = open_set(DataSpec([(making.noise(i), "cat" if i % 2 else "dog") for i in range(4)]))
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [1, 0, 1, 0]


def test_gray_is_repeated_and_alpha_is_laid_on_white(tmp_path: Path) -> None:
    np.save(tmp_path / "gray.npy", np.full((2, 5, 5), 7, np.uint8))
    assert (open_set(DataSpec(str(tmp_path / "gray.npy"))).read([1]) == 7).all()
    np.save(tmp_path / "clear.npy", np.zeros((2, 5, 5, 4), np.uint8))
    assert (open_set(DataSpec(str(tmp_path / "clear.npy"))).read([0, 1]) == 255).all()
    gray = torch.full((2, 5, 5), 7, dtype=torch.uint8)
    assert (of_array(gray).read([1]) == 7).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_has_its_own_channels_and_size(tmp_path: Path, channels: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 5, 5, channels), np.uint8))
    found = open_set(DataSpec(str(tmp_path / "a.npy")))
    assert (found.channels, found.size, found.resized) == (channels, (5, 5), False)


WRONG_ARRAYS = [np.zeros((2, 5, 5, 3)), np.zeros((0, 5, 5, 3), np.uint8), np.zeros(4, np.uint8)]


@pytest.mark.parametrize("array", WRONG_ARRAYS)
def test_arrays_that_are_not_uint8_images_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "wrong.npy", array)
    with pytest.raises(ValueError, match=r"wrong\.npy holds .*give uint8 of shape"):
        open_set(DataSpec(str(tmp_path / "wrong.npy")))
    with pytest.raises(ValueError, match=r"The data is .*give uint8 of shape \(n, height, width, 3\)"):
        open_set(DataSpec(array))
    with pytest.raises(ValueError, match=r"The data is .*give uint8 of shape \(n, 3, height, width\)"):
        open_set(DataSpec(torch.from_numpy(array)))


def test_arrays_are_not_resized(tmp_path: Path) -> None:
    array = np.zeros((2, 5, 6, 3), np.uint8)
    np.save(tmp_path / "a.npy", array)
    for data, subject in ((array, "The array"), (str(tmp_path / "a.npy"), r".*a\.npy")):
        with pytest.raises(ValueError, match=rf"^{subject} holds images of 5x6, but 8x8 is measured"):
            open_set(DataSpec(data, size=(8, 8)))


def test_an_array_that_would_be_unpickled_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="is not an array of images"):
        open_set(DataSpec(str(tmp_path / "objects.npy")))


def test_damaged_arrays_and_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((3, 5, 5, 3), np.uint8))
    whole = file.read_bytes()
    wrong = [b"", whole[:40], whole[:-1], whole.replace(b"(3, 5", b"(9, 9"), whole.replace(b"(3, 5", b"(3, )")]
    with open(tmp_path / "archive.npz", "wb") as archive:
        np.savez(archive, images=np.zeros((3, 5, 5, 3), np.uint8))
    for content in (*wrong, (tmp_path / "archive.npz").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"images\.npy is not an array of images"):
            open_set(DataSpec(str(file)))


def header_of(shape: str) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(1000)


@pytest.mark.parametrize(
    "shape",
    [
        "(1" + 30 * "0" + ", 5, 5, 3)",
        "(-1, 5, 5, 3)",
        "(-1, -5, 5, 3)",
        "(2, 0, 5, 3)",
        "(2, 5, 0, 3)",
        "(" * 200 + ")" * 200,
        "(None, 5, 5, 3)",
    ],
)
def test_arrays_of_impossible_shapes_are_refused(tmp_path: Path, shape: str) -> None:
    file = tmp_path / "images.npy"
    file.write_bytes(header_of("(2, 5, 5, 3)"))
    assert len(open_set(DataSpec(str(file)))) == 2
    file.write_bytes(header_of(shape))
    with pytest.raises(ValueError, match=r"images\.npy (is not|holds).*(save one with|give uint8)") as refused:
        open_set(DataSpec(str(file)))
    assert str(refused.value).startswith(str(file.absolute()))


def test_a_folder_with_an_arrays_name_is_refused(tmp_path: Path) -> None:
    making.save_noise(tmp_path / "x.npy", "0.png")
    with pytest.raises(ValueError, match=r"x\.npy is a folder, not an array: rename it"):
        open_set(DataSpec(str(tmp_path / "x.npy")))


def test_a_random_subset_depends_on_the_seed() -> None:
    whole = of_array(np.arange(20, dtype=np.uint8).repeat(75).reshape(20, 5, 5, 3))
    five = subset(whole, 5, 0)
    values = five.read(range(5))[:, 0, 0, 0].tolist()
    assert values == sorted(set(values))
    assert values != subset(whole, 5, 1).read(range(5))[:, 0, 0, 0].tolist()
    assert five.content != whole.content
    assert subset(whole, 20, 0) is whole


def test_the_same_content_has_the_same_digest(tmp_path: Path) -> None:
    for name in ("one", "two"):
        making.save(tmp_path / name / "a.png", Image.new("RGB", (6, 6), "red"))
    one, two = (open_set(DataSpec(str(tmp_path / name))) for name in ("one", "two"))
    assert one.content == two.content


def test_arrays_of_other_shapes_have_other_digests() -> None:
    pixels = np.zeros(108, np.uint8)
    assert of_array(pixels.reshape(2, 6, 3, 3)).content != of_array(pixels.reshape(2, 3, 6, 3)).content


def test_images_decoded_differently_have_other_digests(tmp_path: Path) -> None:
    """The pixels of gray, small and padded images differ, although the files are the same."""
    making.save_noise(tmp_path / "photos", "0.png", "1.png")

    def decoded(channels: Literal[1, 3], size: tuple[int, int], fit: Fit) -> ImageSet:
        config = DataConfig(str(tmp_path / "photos"), size=size, fit=fit, channels=channels)
        return of_store(open_store(config), config)

    options: list[tuple[Literal[1, 3], tuple[int, int], Fit]] = [
        (3, (16, 16), "crop"),
        (1, (16, 16), "crop"),
        (3, (8, 8), "crop"),
        (3, (16, 16), "pad"),
    ]
    sets = [decoded(channels, size, fit) for channels, size, fit in options]
    assert len({images.content for images in sets}) == 4
    assert sets[0].content == decoded(*options[0]).content
    assert [images.channels for images in sets] == [3, 1, 3, 3]
    assert [images.resized for images in sets] == [False, False, True, False]


def test_headers_are_read_again_only_if_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making.save_noise(tmp_path / "photos", "0.png", "1.png")
    spec = DataSpec(str(tmp_path / "photos"))
    assert own_size(spec) == (16, 16)
    with monkeypatch.context() as patch:
        patch.setattr(image_sets, "survey", None)
        assert own_size(spec) == (16, 16)
    making.save(tmp_path / "photos" / "2.png", making.noise(2, 20, 20))
    assert own_size(spec) is None
