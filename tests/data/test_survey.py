from pathlib import Path

import pytest
from helpers.making import noise, opened, save, save_noise
from PIL import Image

from undiffuse.data.readers.folder import folder_source
from undiffuse.data.survey import Survey, survey


def images(folder: Path, *modes: str) -> Path:
    for i, mode in enumerate(modes):
        save(folder / f"{i}.png", noise(i).convert(mode))
    return folder


@pytest.mark.parametrize(
    ("modes", "channels"),
    [
        (("L", "1", "I;16"), 1),
        (("L", "RGB"), 3),
        (("RGB", "P"), 3),
        (("RGBA", "LA"), 4),
        (("RGBA", "RGB"), 3),
        (("RGBA", "L"), 3),
        (("LA", "L"), 3),
    ],
)
def test_channels_are_what_all_images_have(tmp_path: Path, modes: tuple[str, ...], channels: int) -> None:
    assert opened(images(tmp_path / "photos", *modes)).channels == channels


def test_floats_and_cmyk_count_as_gray_and_color(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.tif", noise(0, channels=1).convert("F"))
    assert opened(tmp_path / "photos").channels == 1
    save(tmp_path / "photos" / "b.tif", noise(1).convert("CMYK"))
    assert opened(tmp_path / "photos").channels == 3


def test_a_palette_with_a_transparent_entry_has_alpha(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", noise(0).convert("P"), transparency=0)
    assert opened(tmp_path / "photos").channels == 4


@pytest.mark.parametrize(
    ("own", "chosen"),
    [
        ((32, 48), (32, 48)),
        ((64, 64), (64, 64)),
        ((28, 28), (32, 32)),
        ((8, 8), (16, 16)),
        ((600, 800), (48, 64)),
        ((1000, 100), (64, 16)),
    ],
)
def test_a_shared_size_is_used_up_to_64_in_multiples_of_8(
    tmp_path: Path, own: tuple[int, int], chosen: tuple[int, int]
) -> None:
    for i in range(2):
        save(tmp_path / "photos" / f"{i}.png", Image.new("L", own[::-1], i))
    assert opened(tmp_path / "photos").size == chosen


def test_images_of_several_sizes_become_64_by_64(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", noise(0, 32, 32))
    save(tmp_path / "photos" / "b.png", noise(1, 32, 40))
    assert opened(tmp_path / "photos").size == (64, 64)


def test_sizes_are_those_of_the_upright_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photos" / "upright.png", noise(0, 48, 24))
    for suffix in (".png", ".jpg", ".tif"):
        save(tmp_path / "photos" / f"turned{suffix}", noise(1, 24, 48), exif=exif.tobytes())
    assert opened(tmp_path / "photos").size == (48, 24)


def test_options_win_over_the_survey(tmp_path: Path) -> None:
    store = opened(save_noise(tmp_path / "photos", "a.png"), size=(24, 40), channels=1)
    assert store.shape == (1, 24, 40)
    assert store.read([0]).shape == (1, 24, 40, 1)


def test_images_that_cannot_be_opened_are_not_counted(tmp_path: Path) -> None:
    folder = images(tmp_path / "photos", "L", "L")
    (folder / "text.jpg").write_text("not an image")
    assert survey(folder_source(folder)) == Survey(gray=2, color=0, alpha=0, sizes={"16x16": 2})


def test_a_survey_of_nothing_still_chooses() -> None:
    nothing = Survey(0, 0, 0, {})
    assert (nothing.size, nothing.channels) == ((64, 64), 3)
