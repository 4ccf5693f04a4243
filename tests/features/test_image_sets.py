"""What can be measured: folders, archives, arrays, datasets, at one size and in RGB."""

from pathlib import Path

import numpy as np
import pytest
from helpers import making
from PIL import Image

from undiffuse.data.store import DataConfig, open_store
from undiffuse.features import image_sets
from undiffuse.features.image_sets import Asked, ImageSet, chosen, of_store, open_set, own_size
from undiffuse.utils.names import Fit


def quiet(asked: Asked) -> ImageSet:
    return open_set(asked, False)


def test_images_of_one_size_keep_it_whatever_it_is(tmp_path: Path) -> None:
    making.save(tmp_path / "large" / "0.png", making.noise(0, 100, 90))
    found = quiet(Asked(str(tmp_path / "large")))
    assert found.size == (100, 90)
    assert np.array_equal(found.read([0])[0], np.asarray(making.noise(0, 100, 90)))


def test_images_of_many_sizes_come_to_one(tmp_path: Path) -> None:
    for i, side in enumerate((10, 20, 30)):
        making.save(tmp_path / "mixed" / f"{i}.png", making.noise(i, side, side))
    asked = Asked(str(tmp_path / "mixed"))
    assert own_size(asked) is None
    assert quiet(asked).size == (64, 64)
    assert quiet(Asked(asked.data, size=(12, 12))).read([0, 2]).shape == (2, 12, 12, 3)


def test_an_array_a_folder_and_an_archive_of_the_same_images_are_the_same(tmp_path: Path) -> None:
    images = [making.noise(i) for i in range(3)]
    np.save(tmp_path / "array.npy", np.stack([np.asarray(image) for image in images]))
    making.save_noise(tmp_path / "folder", "0.png", "1.png", "2.png")
    making.write_zip(tmp_path / "zipped.zip", {f"{i}.png": making.encoded(p) for i, p in enumerate(images)})
    sets = [quiet(Asked(str(tmp_path / name))) for name in ("array.npy", "folder", "zipped.zip")]
    for of_set in sets:
        assert np.array_equal(of_set.read([2, 0]), np.stack([np.asarray(images[i]) for i in (2, 0)]))


def test_gray_is_repeated_and_alpha_laid_on_white(tmp_path: Path) -> None:
    np.save(tmp_path / "gray.npy", np.full((2, 5, 5), 7, np.uint8))
    assert (quiet(Asked(str(tmp_path / "gray.npy"))).read([1]) == 7).all()
    np.save(tmp_path / "clear.npy", np.zeros((2, 5, 5, 4), np.uint8))
    assert (quiet(Asked(str(tmp_path / "clear.npy"))).read([0, 1]) == 255).all()


@pytest.mark.parametrize("array", [np.zeros((2, 5, 5, 3)), np.zeros((0, 5, 5, 3), np.uint8), np.zeros(4, np.uint8)])
def test_arrays_of_anything_else_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "wrong.npy", array)
    with pytest.raises(ValueError, match=r"wrong\.npy holds .*give uint8 of shape"):
        quiet(Asked(str(tmp_path / "wrong.npy")))


def test_an_array_that_would_unpickle_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="is no array of images"):
        quiet(Asked(str(tmp_path / "objects.npy")))


def test_damaged_arrays_and_other_files_of_that_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((3, 5, 5, 3), np.uint8))
    whole = file.read_bytes()
    wrong = [b"", whole[:40], whole[:-1], whole.replace(b"(3, 5", b"(9, 9"), whole.replace(b"(3, 5", b"(3, )")]
    with open(tmp_path / "archive.npz", "wb") as archive:
        np.savez(archive, images=np.zeros((3, 5, 5, 3), np.uint8))
    for content in (*wrong, (tmp_path / "archive.npz").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"images\.npy is no array of images"):
            quiet(Asked(str(file)))


def test_some_are_drawn_at_random_by_seed_and_are_another_set(tmp_path: Path) -> None:
    images = np.arange(20, dtype=np.uint8).repeat(75).reshape(20, 5, 5, 3)
    np.save(tmp_path / "a.npy", images)
    whole = quiet(Asked(str(tmp_path / "a.npy")))
    five = chosen(whole, 5, 0)
    values = five.read(range(5))[:, 0, 0, 0].tolist()
    assert values == sorted(set(values))
    assert values != chosen(whole, 5, 1).read(range(5))[:, 0, 0, 0].tolist()
    assert five.content != whole.content
    assert chosen(whole, 20, 0) is whole


def test_the_same_content_has_the_same_digest(tmp_path: Path) -> None:
    for name in ("one", "two"):
        making.save(tmp_path / name / "a.png", Image.new("RGB", (6, 6), "red"))
    one, two = (quiet(Asked(str(tmp_path / name))) for name in ("one", "two"))
    assert one.content == two.content


def test_images_that_were_decoded_otherwise_are_another_set(tmp_path: Path) -> None:
    """The pixels of gray, of small and of padded ones differ, though the files are the same."""
    making.save_noise(tmp_path / "photos", "0.png", "1.png")

    def decoded(channels: int, size: tuple[int, int], fit: Fit) -> ImageSet:
        config = DataConfig(str(tmp_path / "photos"), size=size, fit=fit, channels=channels)
        return of_store(open_store(config), config)

    ways: list[tuple[int, tuple[int, int], Fit]] = [
        (3, (16, 16), "crop"),
        (1, (16, 16), "crop"),
        (3, (8, 8), "crop"),
        (3, (16, 16), "pad"),
    ]
    sets = [decoded(channels, size, fit) for channels, size, fit in ways]
    assert len({of_set.content for of_set in sets}) == 4
    assert sets[0].content == decoded(*ways[0]).content
    assert [of_set.channels for of_set in sets] == [3, 1, 3, 3]
    assert [of_set.resized for of_set in sets] == [False, False, True, False]


def test_one_image_of_another_size_makes_a_resized_set(tmp_path: Path) -> None:
    making.save_noise(tmp_path / "photos", "0.png", "1.png")
    making.save(tmp_path / "photos" / "2.png", making.noise(2, 16, 17))
    assert quiet(Asked(str(tmp_path / "photos"), size=(16, 16))).resized


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_has_its_own_channels_and_size(tmp_path: Path, channels: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 5, 5, channels), np.uint8))
    found = quiet(Asked(str(tmp_path / "a.npy")))
    assert (found.channels, found.resized) == (channels, False)


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
    assert len(quiet(Asked(str(file)))) == 2
    file.write_bytes(header_of(shape))
    with pytest.raises(ValueError, match=r"images\.npy (is no array|holds).*(save one with|give uint8)") as refused:
        quiet(Asked(str(file)))
    assert str(refused.value).startswith(str(file.absolute()))


def test_a_folder_of_an_arrays_name_is_refused(tmp_path: Path) -> None:
    making.save_noise(tmp_path / "x.npy", "0.png")
    with pytest.raises(ValueError, match=r"x\.npy is a folder, not an array: rename it"):
        quiet(Asked(str(tmp_path / "x.npy")))


def test_headers_are_read_once_while_no_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making.save_noise(tmp_path / "photos", "0.png", "1.png")
    asked = Asked(str(tmp_path / "photos"))
    assert own_size(asked) == (16, 16)
    with monkeypatch.context() as patch:
        patch.setattr(image_sets, "survey", None)
        assert own_size(asked) == (16, 16)
    making.save(tmp_path / "photos" / "2.png", making.noise(2, 20, 20))
    assert own_size(asked) is None
