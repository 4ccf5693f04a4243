import math
from pathlib import Path

import pytest
from helpers.exploring import messy
from helpers.making import noise, opened, save, save_noise
from PIL import Image

from undiffuse.exploration.inventory import Inventory, Range, measure_balance, take_inventory


def found(folder: Path, **options) -> Inventory:
    return take_inventory(opened(folder, split="all", **options))


def test_images_are_counted_by_class_and_split(tmp_path: Path) -> None:
    names = ["train/cats/1.png", "train/cats/2.png", "train/dogs/1.png", "test/cats/1.png", "val/dogs/1.png"]
    counted = found(save_noise(tmp_path / "pets", *names))
    assert counted.images == 5
    assert counted.splits == {"train": 3, "val": 1, "test": 1}
    assert {c.name: (c.images, c.splits) for c in counted.classes} == {
        "cats": (3, {"train": 2, "val": 0, "test": 1}),
        "dogs": (2, {"train": 1, "val": 1, "test": 0}),
    }


def test_formats_modes_and_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "p" / "turned.jpg", noise(0, 20, 40), exif=exif.tobytes())
    save(tmp_path / "p" / "gray.png", noise(1, 40, 20, 1))
    save(tmp_path / "p" / "palette.gif", noise(2, 30, 30).convert("P"))
    save(tmp_path / "p" / "print.tif", noise(3, 10, 30).convert("CMYK"))
    counted = found(tmp_path / "p", size=(16, 16), channels=3)
    assert counted.formats == {"PNG": 1, "GIF": 1, "TIFF": 1, "JPEG": 1}
    assert counted.modes == {"L": 1, "P": 1, "CMYK": 1, "RGB": 1}
    assert counted.sizes == {"40x20": 2, "30x30": 1, "10x30": 1}
    assert counted.shapes() == {(40, 20): 2, (30, 30): 1, (10, 30): 1}
    assert (counted.landscape, counted.portrait, counted.square) == (1, 2, 1)
    assert counted.height == Range(10, 35, 40)
    assert counted.width == Range(20, 25, 30)
    assert counted.aspect == Range(0.5, 0.75, 3)
    assert counted.splits == {}
    assert counted.classes == ()


def test_every_bad_file_is_listed_with_its_reason(tmp_path: Path) -> None:
    counted = found(messy(tmp_path / "p"))
    assert counted.images == 2 + 3 + 4 + 5
    assert len(counted.bad_files) == 3
    assert {Path(bad.name).name for bad in counted.bad_files} == {"<b>empty<_b>.png", "half.png", "空.jpg"}
    assert all(bad.reason for bad in counted.bad_files)


def test_images_that_were_never_files_have_no_format(tmp_path: Path) -> None:
    counted = found(Path("digits"), size=(8, 8))
    assert counted.formats == {"in memory": 1797}
    assert counted.modes == {"L": 1797}
    assert counted.sizes == {"8x8": 1797}


def test_balance_measures_how_uneven_classes_are(tmp_path: Path) -> None:
    names = [f"{name}/{i}.png" for name, count in (("a", 4), ("b", 2), ("c", 2)) for i in range(count)]
    measured = measure_balance(found(save_noise(tmp_path / "p", *names)))
    assert measured is not None
    assert measured.largest.name == "a"
    assert measured.smallest.images == 2
    assert measured.imbalance_ratio == 2
    assert measured.entropy_bits == pytest.approx(1.5)  # 1/2 log 2 + 2 (1/4 log 4)
    assert measured.evenness == pytest.approx(1.5 / math.log2(3))


def test_an_empty_class_gives_no_ratio_and_no_entropy(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "p", "a/1.png", "b/1.png")
    (folder / "c").mkdir()
    (folder / "c" / "bad.png").touch()
    measured = measure_balance(found(folder))
    assert measured is not None
    assert (measured.smallest.name, measured.smallest.images) == ("c", 0)
    assert measured.imbalance_ratio is None
    assert measured.entropy_bits == pytest.approx(1)


def test_without_classes_there_is_no_balance(tmp_path: Path) -> None:
    assert measure_balance(found(save_noise(tmp_path / "p", "1.png", "2.png"))) is None
