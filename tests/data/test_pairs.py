from pathlib import Path

import numpy as np
import pytest
from helpers.making import encoded, noise, opened, save, save_noise, write_zip

from undiffuse.data.pairs import Pairs, open_pairs
from undiffuse.data.store import DataConfig, Store, open_store

OPTIONS = DataConfig()


def photos(folder: Path, *names: str) -> Store:
    return opened(save_noise(folder / "photos", *names), size=(8, 12))


def names_of_partners(pairs: Pairs) -> list[str]:
    names = pairs.store.names
    return [names[i] if i >= 0 else "" for i in pairs.partner]


def test_partners_have_the_same_name_whatever_the_suffix(tmp_path: Path) -> None:
    images = photos(tmp_path, "b/1.png", "a/1.png", "a/2.x.png")
    save_noise(tmp_path / "edges", "a/2.x.JPG", "a/1.bmp", "b/1.webp")
    pairs = open_pairs(images, OPTIONS, tmp_path / "edges")
    assert images.names == ["a/1.png", "a/2.x.png", "b/1.png"]
    assert names_of_partners(pairs) == ["a/1.bmp", "a/2.x.JPG", "b/1.webp"]
    pixels, found = pairs.read([2, 0])
    assert found.all()
    assert (pixels == pairs.store.read([2, 0])).all()
    assert pixels.shape == (2, 8, 12, 3)


def test_a_missing_partner_is_named_and_black(tmp_path: Path, notices: pytest.LogCaptureFixture) -> None:
    images = photos(tmp_path, *[f"{i}.png" for i in range(6)])
    edges = save_noise(tmp_path / "edges", "1.png", "extra.png")
    pairs = open_pairs(images, OPTIONS, edges)
    assert notices.messages[-2:] == [
        f"5 of 6 images have no partner in {edges}, and train without one: 0.png, 2.png, 3.png, ...",
        f"1 image in {edges} belongs to no training image.",
    ]
    pixels, found = pairs.read([0, 1])
    assert found.tolist() == [False, True]
    assert not pixels[0].any()
    with pytest.raises(ValueError, match=r"5 of 6 images have no partner .* leave --strict out"):
        open_pairs(images, OPTIONS, edges, strict=True)


def test_no_partner_at_all_is_an_error(tmp_path: Path) -> None:
    images, edges = photos(tmp_path, "a.png", "b.png"), save_noise(tmp_path / "edges", "x/c.png", "y/d.png")
    with pytest.raises(ValueError, match=r"2 of 2 images have no partner .* a.png, b.png and those x/c.png, y/d.png"):
        open_pairs(images, OPTIONS, edges)


def test_two_partners_are_an_error(tmp_path: Path) -> None:
    images, edges = photos(tmp_path, "a.png", "b.png"), save_noise(tmp_path / "edges", "a.png", "a.bmp")
    with pytest.raises(ValueError, match="two images named a, with different suffixes: keep one"):
        open_pairs(images, OPTIONS, edges)


def test_the_folder_that_an_archive_is_of_does_not_count(tmp_path: Path) -> None:
    images = photos(tmp_path, "a/1.png", "b/1.png")
    members = {f"edges/{name}.png": encoded(noise(i, channels=1)) for i, name in enumerate(("b/1", "a/1"))}
    pairs = open_pairs(images, OPTIONS, write_zip(tmp_path / "edges.zip", members))
    assert names_of_partners(pairs) == ["edges/a/1.png", "edges/b/1.png"]


def test_images_of_one_class_alone_are_paired_by_their_whole_names(tmp_path: Path) -> None:
    images, edges = photos(tmp_path, "a/1.png", "b/1.png"), save_noise(tmp_path / "edges", "b/1.png")
    assert names_of_partners(open_pairs(images, OPTIONS, edges)) == ["", "b/1.png"]


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (3, 3), (4, 3)])
def test_channels_follow_from_the_partners(tmp_path: Path, channels: int, expected: int) -> None:
    images = photos(tmp_path, "a.png", "b.png")
    for name in ("a", "b"):
        save(tmp_path / f"edges/{name}.png", noise(0, channels=channels))
    assert open_pairs(images, OPTIONS, tmp_path / "edges").channels == expected


def test_partners_are_cropped_as_the_images_are(tmp_path: Path) -> None:
    image = noise(0, 20, 40)
    save(tmp_path / "photos/a.png", image)
    save(tmp_path / "edges/a.png", image)
    for fit in ("crop", "pad", "stretch"):
        config = DataConfig(str(tmp_path / "photos"), size=(8, 8), fit=fit)
        images = open_store(config)
        assert (open_pairs(images, config, tmp_path / "edges").read([0])[0] == images.read([0])).all()


def test_images_of_sequences_are_paired_by_number() -> None:
    first, second = ([np.full((8, 8, 3), level + i, np.uint8) for i in range(3)] for level in (0, 100))
    images = open_store(DataConfig("sequence:list", size=(8, 8)), data=first)
    pairs = open_pairs(images, OPTIONS, second)
    assert pairs.read([2])[0].max() == 102
