from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.making import noise, opened, save
from torchvision.transforms import InterpolationMode, v2

from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.open import open_source
from undiffuse.data.pixels import to_pixels
from undiffuse.exploration.before_after import before_and_after
from undiffuse.exploration.samples import SHOWN, draw_samples
from undiffuse.utils.randomness import derived_seed


def pets(folder: Path, **counts: int) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        for i in range(count):
            save(folder / name / f"{i:02}.png", noise(1000 * label + i, 16, 24))
    return folder


def test_classes_are_drawn_equally_often(tmp_path: Path) -> None:
    drawn = draw_samples(opened(pets(tmp_path / "p", cats=30, dogs=20, fish=9)))
    assert Counter(drawn.names) == {"cats": 6, "dogs": 5, "fish": 5}
    assert len(set(drawn.indices)) == 16
    assert list(drawn.names) == sorted(drawn.names)


def test_other_classes_fill_up_for_small_ones(tmp_path: Path) -> None:
    assert Counter(draw_samples(opened(pets(tmp_path / "p", cats=30, dogs=2))).names) == {"cats": 14, "dogs": 2}


def test_of_many_classes_evenly_spaced_ones_are_drawn(tmp_path: Path) -> None:
    drawn = draw_samples(opened(pets(tmp_path / "p", **{f"k{i:02}": 2 for i in range(40)})))
    assert len(set(drawn.names)) == 16
    assert (drawn.names[0], drawn.names[-1]) == ("k00", "k39")


def test_few_images_without_classes_are_all_drawn_and_numbered(tmp_path: Path) -> None:
    drawn = draw_samples(opened(pets(tmp_path / "p", only=5)))
    assert sorted(drawn.indices) == [0, 1, 2, 3, 4]
    assert drawn.names == tuple(f"no. {i}" for i in drawn.indices)


def test_the_same_seed_draws_and_augments_the_same(tmp_path: Path) -> None:
    store = opened(pets(tmp_path / "p", cats=30, dogs=20))
    first, again, other = (draw_samples(store, seed=seed) for seed in (0, 0, 1))
    assert first.indices == again.indices
    assert (first.after == again.after).all()
    assert first.indices != other.indices


def test_the_listed_transforms_reproduce_the_samples(tmp_path: Path) -> None:
    store = opened(pets(tmp_path / "p", cats=30, dogs=20), size=(16, 24))
    drawn = draw_samples(store, seed=3)
    assert (drawn.before == store.read(drawn.indices)).all()
    # The page lists the transforms as torchvision prints them: evaluated, they do the same again.
    *listed, normalization = drawn.transforms
    assert [text.split("(")[0] for text in listed] == ["RandomResizedCrop", "RandomHorizontalFlip"]
    assert f"scale=({SHOWN.crop_scale}, 1.0)" in listed[0]
    names = {"torch": torch, "InterpolationMode": InterpolationMode}
    transform = v2.Compose([eval(text, names, vars(v2)) for text in listed])
    normalize = eval(f"lambda x: {normalization}")
    for i, before, after in zip(drawn.indices, drawn.before, drawn.after, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed("augmentation", 3, i))
            expected = to_pixels(normalize(transform(torch.from_numpy(before).permute(2, 0, 1))[None]))[0]
        assert (expected.permute(1, 2, 0).numpy() == after).all()
    assert (drawn.before != drawn.after).any(axis=(1, 2, 3)).all()


def test_without_augmentation_nothing_changes(tmp_path: Path) -> None:
    drawn = draw_samples(opened(pets(tmp_path / "p", cats=3)), AugmentationConfig())
    assert drawn.transforms == ("x / 127.5 - 1",)
    assert (drawn.before == drawn.after).all()


def test_originals_are_shown_with_what_training_reads(tmp_path: Path) -> None:
    for i, (height, width) in enumerate([(100, 100), (100, 130), (100, 200), (400, 50)]):
        save(tmp_path / "p" / f"{i}.png", noise(i, height, width))
    (tmp_path / "p" / "bad.png").touch()
    store = opened(tmp_path / "p", size=(16, 16))
    shown = before_and_after(open_source(str(tmp_path / "p")), store)
    assert [image.name for image in shown] == ["3.png", "2.png", "1.png", "0.png"]  # The most heavily cropped first.
    for image in shown:
        assert (image.result == store.read([int(image.name[0])])[0]).all()
        assert max(image.original.shape[:2]) <= 320
        ratio = image.original.shape[1] / image.original.shape[0]
        assert ratio == pytest.approx(image.width / image.height, rel=0.05)
    assert (shown[-1].original == np.asarray(noise(0, 100, 100))).all()


def test_a_deleted_original_is_left_out(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "p" / f"{i}.png", noise(i))
    source, store = open_source(str(tmp_path / "p")), opened(tmp_path / "p")
    (tmp_path / "p" / "1.png").unlink()
    assert [image.name for image in before_and_after(source, store)] == ["0.png", "2.png"]
