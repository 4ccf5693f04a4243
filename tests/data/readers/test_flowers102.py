from pathlib import Path

import numpy as np
import pytest
from helpers.making import encoded, noise, opened, write_tar
from helpers.serving import closed_port, md5, serving
from scipy.io import savemat
from torchvision.datasets import Flowers102

from undiffuse.data.open import open_source
from undiffuse.utils.names import Split

SPLITS: dict[Split, list[int]] = {"train": [3, 1], "val": [2, 6], "test": [5, 4, 7, 8]}
KINDS = [1, 1, 2, 102, 2, 7, 7, 1]
"""The kind of each flower, counted from 1 as in the file."""


class SmallFlowers:
    """Flowers-102 in its own format with 8 images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.images = {f"jpg/image_{i:05d}.jpg": encoded(noise(i, 24, 32), "JPEG") for i in range(1, 9)}
        savemat("labels", {"labels": np.array([KINDS])}, appendmat=False)
        savemat(
            "setid", {"trnid": [SPLITS["train"]], "valid": [SPLITS["val"]], "tstid": [SPLITS["test"]]}, appendmat=False
        )
        self.files = {
            "102flowers.tgz": write_tar(Path("served.tgz"), self.images).read_bytes(),
            "imagelabels.mat": Path("labels").read_bytes(),
            "setid.mat": Path("setid").read_bytes(),
        }
        keys = ("image", "label", "setid")
        sums = [(name, md5(content)) for name, content in self.files.items()]
        monkeypatch.setattr(Flowers102, "_file_dict", dict(zip(keys, sums, strict=True)))
        monkeypatch.setattr(Flowers102, "_download_url_prefix", closed_port())

    def write(self, folder: Path, *names: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names or self.files:
            (folder / name).write_bytes(self.files[name])

    def expected(self, split: Split) -> list[tuple[str, str]]:
        return [(f"jpg/image_{i:05d}.jpg", Flowers102.classes[KINDS[i - 1] - 1]) for i in SPLITS[split]]


@pytest.fixture
def flowers(monkeypatch: pytest.MonkeyPatch) -> SmallFlowers:
    return SmallFlowers(monkeypatch)


def labeled(split: Split = "auto") -> list[tuple[str, str]]:
    source = open_source("flowers102", split=split)
    return [(image.name, source.class_names[image.label]) for image in source.images()]


def test_flowers102_files_in_place_work_without_a_network(flowers: SmallFlowers) -> None:
    flowers.write(Path("data/flowers-102"))
    everything = [*flowers.expected("train"), *flowers.expected("val"), *flowers.expected("test")]
    assert labeled() == labeled("all") == everything
    for split in SPLITS:
        assert labeled(split) == flowers.expected(split)
    assert any("all 8,189" in notice for notice in open_source("flowers102").notices)
    assert len(open_source("flowers102").class_names) == 102
    store = opened("flowers102")
    assert store.shape == (3, 24, 32)
    assert store.skipped == ()
    assert store.names == [name for name, _ in everything]
    assert [original.split for original in store.originals()] == 2 * ["train"] + 2 * ["val"] + 4 * ["test"]


def test_flowers102_unpacked_needs_no_archive(flowers: SmallFlowers) -> None:
    for name, content in flowers.images.items():
        path = Path("mine/flowers-102") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    flowers.write(Path("mine/flowers-102"), "imagelabels.mat", "setid.mat")
    assert open_source("flowers102", "mine").total_images == 8


def test_flowers102_offline_names_every_missing_file(tmp_path: Path, flowers: SmallFlowers) -> None:
    folder = tmp_path / "data" / "flowers-102"
    with pytest.raises(FileNotFoundError, match="cannot be reached") as caught:
        open_source("flowers102")
    for name, content in flowers.files.items():
        assert f"{name} (MD5 {md5(content)})" in str(caught.value)
        assert str(folder / name) in str(caught.value)

    flowers.write(folder, "102flowers.tgz", "setid.mat")
    with pytest.raises(FileNotFoundError, match="cannot be reached") as caught:
        open_source("flowers102")
    assert "imagelabels.mat" in str(caught.value)
    assert f"put it at {folder / 'imagelabels.mat'}." in str(caught.value)
    assert "setid.mat" not in str(caught.value)
    assert not (folder / "jpg").exists()

    (folder / "imagelabels.mat").write_bytes(b"damaged")
    with pytest.raises(FileNotFoundError, match=r"imagelabels\.mat is damaged"):
        open_source("flowers102")
    flowers.write(folder, "imagelabels.mat")
    assert open_source("flowers102").total_images == 8


def test_flowers102_is_downloaded(tmp_path: Path, flowers: SmallFlowers, monkeypatch) -> None:
    flowers.write(tmp_path / "served")
    with serving(tmp_path / "served") as url:
        monkeypatch.setattr(Flowers102, "_download_url_prefix", url)
        assert labeled("train") == flowers.expected("train")


@pytest.mark.slow
@pytest.mark.parametrize(("split", "total"), [("train", 1020), ("val", 1020), ("test", 6149), ("auto", 8189)])
def test_the_real_flowers102_has_its_splits(real_data: Path, split: Split, total: int) -> None:
    source = open_source("flowers102", str(real_data), split)
    labels = np.array([image.label for image in source.images()])
    assert len(labels) == source.total_images == total
    counts = np.bincount(labels, minlength=102)
    if split in ("train", "val"):
        assert (counts == 10).all()
    assert counts.min() > 0
    with next(iter(source.images())).open() as image:
        assert image.mode == "RGB"
