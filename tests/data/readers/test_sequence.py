import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.making import contents, encoded, noise, run_python, save, save_noise
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import FakeData, ImageFolder

from undiffuse.data.open import open_source
from undiffuse.data.readers.sequence import sequence_source, to_image
from undiffuse.data.store import DataConfig, Store, store_of


def stored(data: Any, strict: bool = False, **options: Any) -> Store:
    return store_of(lambda: open_source(data), DataConfig("sequence:test", **options), strict)


def array(seed: int, channels: int = 3) -> np.ndarray:
    return np.asarray(noise(seed, channels=channels))


def labels(data: Any) -> list[str | None]:
    """The class name of each image."""
    source = sequence_source(data)
    return [source.class_names[image.label] if image.label >= 0 else None for image in source.images()]


def labeled(*labels: object) -> list[tuple[Image.Image, object]]:
    return [(noise(i), label) for i, label in enumerate(labels)]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_forms_of_an_image_give_the_same_store(channels: int) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (5, 16, 24, channels), np.uint8)
    forms: dict[str, Any] = {
        "pil": [Image.fromarray(each.squeeze()) for each in arrays],
        "arrays": list(arrays),
        "tuple": tuple(arrays),
        "one array": arrays,
        "tensors": [torch.from_numpy(each).permute(2, 0, 1) for each in arrays],
        "one tensor": torch.from_numpy(arrays).permute(0, 3, 1, 2),
    }
    if channels == 1:
        forms["without channels"] = [each[..., 0] for each in arrays]
        forms["tensor without channels"] = torch.from_numpy(arrays[..., 0])
    stores = {name: stored(data) for name, data in forms.items()}
    for name, store in stores.items():
        assert (store.read(range(5)) == arrays).all(), name
        assert store.shape == (channels, 16, 24)
        assert store.class_names == ()
    assert len({store.folder for store in stores.values()}) == 1


def test_names_are_numbers_and_the_store_says_what_it_is() -> None:
    store = stored([noise(i) for i in range(11)])
    assert store.names == [f"{i:02d}" for i in range(11)]
    assert (store.name, store.split) == ("images", "all")
    assert {original[2:4] for original in store.originals()} == {("", "RGB")}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["dog", "cat", "dog"], ["dog", "cat", "dog"]),
        ([7, 2, 7], ["7", "2", "7"]),
        ([np.int64(1), torch.tensor(0), True], ["1", "0", "1"]),
        ([0, None, 1], ["0", "unsorted", "1"]),
        ([0, -1, 0], ["0", "unsorted", "0"]),
        (["cat", None, "unsorted"], ["cat", "unsorted", "unsorted"]),
        ([None, None, -1], [None, None, None]),
        (["cat", "cat", "cat"], [None, None, None]),
    ],
)
def test_labels_name_classes(given: list[object], names: list[str | None]) -> None:
    assert labels(labeled(*given)) == names


def test_classes_are_in_order() -> None:
    assert sequence_source(labeled("b", "c", "a")).class_names == ("a", "b", "c")
    assert sequence_source(labeled(10, 9, None)).class_names == ("9", "10", "unsorted")


class Named(list):
    """A list with `classes`, as torchvision's datasets have them."""

    classes: Sequence[object] = ["zero", "one", "two"]


def test_the_classes_of_a_dataset_name_its_labels() -> None:
    data = Named(labeled(2, 0))
    assert labels(data) == ["two", "zero"]
    assert sequence_source(data).class_names == ("zero", "one", "two")
    assert labels(Named(labeled("one", "zero"))) == ["one", "zero"]
    assert sequence_source(Named(labeled("one", "zero"))).class_names == ("zero", "one", "two")
    assert labels(Named(labeled("other", "one"))) == ["other", "one"]
    assert labels(Subset(data, [1])) == ["zero"]  # ty: ignore[invalid-argument-type]
    data.classes = [("tench", "Tinca tinca"), "b\x1b", "c"]
    assert sequence_source(data).class_names == ("tench, Tinca tinca", "b�", "c")


def test_a_torchvision_folder_equals_the_folder(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "cats/0.png", "cats/1.png", "dogs/2.png")
    from_folder, from_python = stored(folder), stored(ImageFolder(str(folder)))
    assert from_python.name == "ImageFolder"
    assert from_python.class_names == from_folder.class_names == ("cats", "dogs")
    assert list(contents(from_python).values()) == list(contents(from_folder).values())


def test_torchvisions_fake_data_is_read() -> None:
    store = stored(FakeData(6, (3, 16, 16), num_classes=3))
    assert len(store) == 6
    assert store.shape == (3, 16, 16)


def test_files_opened_by_the_user_stay_usable(tmp_path: Path) -> None:
    image = Image.open(save(tmp_path / "a.png", noise(0)))
    store = stored([image, image])
    assert (store.read([1])[0] == array(0)).all()
    assert (np.asarray(image) == array(0)).all()


def test_exif_orientation_and_palettes_are_as_in_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photos" / "0.png", noise(0, 16, 24), exif=exif.tobytes())
    save(tmp_path / "photos" / "1.png", noise(1, 24, 16).convert("P"), transparency=0)
    in_memory = [Image.open(tmp_path / "photos" / f"{i}.png") for i in range(2)]
    assert (stored(in_memory).read([0, 1]) == stored(tmp_path / "photos").read([0, 1])).all()


def test_size_fit_and_channels_apply() -> None:
    store = stored([noise(0, 24, 16), noise(1, 16, 24, 4)], size=(8, 8), fit="pad", channels=1)
    assert store.shape == (1, 8, 8)


def test_content_depends_on_every_pixel_and_label() -> None:
    data = labeled("a", "b")
    other_pixel = [(data[0][0].copy(), "a"), data[1]]
    other_pixel[0][0].putpixel((3, 4), (1, 2, 3))
    palette = noise(0).convert("P")
    recolored = palette.copy()
    recolored.putpalette([7] * 768)
    variants = [data, data[::-1], other_pixel, labeled("b", "a"), labeled(0, 1), labeled("a"), [palette], [recolored]]
    assert len({sequence_source(each).content() for each in variants}) == len(variants)
    assert sequence_source(labeled("a", "b")).content() == sequence_source(data).content()


class Faulty(list):
    def __getitem__(self, index: Any) -> Any:
        if index == 1:
            raise OSError("disk \x1b on fire")
        return super().__getitem__(index)


def test_a_bad_item_is_skipped_and_named_like_a_bad_file(notices) -> None:
    cut = Image.open(io.BytesIO(encoded(noise(9, 64, 64), "PNG")[:3000]))
    bad = [None, "photo.png", np.zeros((4, 4, 2), np.uint8), np.zeros((3, 16, 16), np.uint8), cut, (noise(0), 1, 2)]
    store = stored(Faulty([noise(0), noise(1), *bad, noise(2)]))
    assert store.names == ["0", "8"]
    reasons = dict(store.skipped)
    assert list(reasons) == ["1", "2", "3", "4", "5", "6", "7"]
    assert reasons["1"] == "disk � on fire"
    assert reasons["2"] == "it is a NoneType, not an image"
    assert reasons["4"] == "its shape (4, 4, 2) is not that of an image"
    assert "cut off" in reasons["6"]
    assert "  3: it is a str, not an image" in notices.messages
    with pytest.raises(ValueError, match="1 in sequence:Faulty cannot be decoded"):
        stored(Faulty([noise(0), noise(1)]), strict=True)


FLOATS = "has pixels of type float32: give uint8 pixels"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "sequence:list is empty: give at least one image"),
        (np.zeros((0, 8, 8, 3), np.uint8), "sequence:ndarray is empty"),
        (np.zeros((2, 8, 8, 3), np.float32), f"Item 0 of sequence:ndarray {FLOATS}"),
        ([noise(0), torch.zeros(3, 8, 8)], f"Item 1 of sequence:list {FLOATS}"),
        ([np.zeros((8, 8), np.uint16)], "pixels of type uint16"),
        (np.zeros((8, 8, 3), np.uint8), r"of shape \(8, 8, 3\) is one image: put it in a list"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"of shape \(3, 8, 8\) is one image"),
        ([None, "cat.png"], r"None of the 2 items of sequence:list is an image \(0: it is a NoneType.*\): give PIL"),
        ({0: noise(0)}, "sequence:dict is not a sequence of images"),
        (labeled(1, "cat"), "Some labels of sequence:list are int and others str"),
        (labeled(1, 0.5), "The label of item 1 of sequence:list is a float: give an int, a str or None"),
        (labeled(torch.zeros(4)), "The label of item 0 of sequence:list is a Tensor"),
        (Named(labeled(0, 3)), "The label 3 in sequence:Named is not one of its 3 classes"),
        (Named(labeled(0, -2)), "The label -2 in sequence:Named"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        open_source(data)
    assert "\n" not in str(caught.value)


def test_a_generator_is_refused() -> None:
    # In a process of its own, without the enforcement of annotations.
    code = (
        "from undiffuse.data.open import open_source\ntry:\n    open_source(iter([]))\nexcept ValueError as e: print(e)"
    )
    assert "sequence:list_iterator is not a sequence of images: give a list" in run_python(code)


def test_a_sequence_has_no_splits() -> None:
    assert open_source([noise(0)], split="all").split == "all"
    with pytest.raises(ValueError, match="sequence:list has no split test"):
        open_source([noise(0)], split="test")


def test_the_name_of_a_sequence_does_not_open_it() -> None:
    with pytest.raises(ValueError, match=r"sequence:MNIST stands for images .* pass them again from Python"):
        open_source("sequence:MNIST")


class OneAtATime(list):
    """Notices when two threads read items at once."""

    reading = threading.Lock()

    def __getitem__(self, index: Any) -> Any:
        assert self.reading.acquire(blocking=False), "read by two threads at once"
        try:
            return super().__getitem__(index)
        finally:
            self.reading.release()


def test_items_are_never_read_by_two_threads_at_once() -> None:
    assert stored(OneAtATime([noise(i) for i in range(200)])).skipped == ()


def test_images_are_copies() -> None:
    pixels = array(0).copy()
    image = to_image(pixels)
    pixels[:] = 0
    original = noise(1)
    assert to_image(original) is not original
    assert image.size == (16, 16)
