"""What the studio may read, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from helpers.making import encoded, noise, save, write_zip

from undiffuse.config import Config, to_json
from undiffuse.runs.run import create_run
from undiffuse.studio.places import Places


@pytest.fixture
def places(preset_config) -> Places:
    create_run(Path("runs/flowers"), preset_config("small"))
    create_run(Path("elsewhere/given"), preset_config("small"))
    return Places(["elsewhere/given"])


def test_runs_are_the_given_ones_those_under_runs_and_the_shipped(places: Places) -> None:
    assert list(places.runs()) == ["given", "flowers", "digits"]
    assert places.run("given").folder == Path("elsewhere/given").absolute()


@pytest.mark.parametrize("name", ["../elsewhere/given", "/etc", "", "runs/flowers", "flowers/../flowers", "nowhere"])
def test_a_path_is_no_name(places: Places, name: str) -> None:
    with pytest.raises(ValueError, match="has no run"):
        places.folder(name)


def test_only_runs_with_a_checkpoint_can_be_sampled(places: Places) -> None:
    places.run("flowers").save(100, {"ema": {"w": torch.zeros(1)}}, {}, keep=1)
    Path("elsewhere/given/config.json").write_text("{")
    assert places.trained() == ["flowers", "digits"]


def test_a_run_that_does_not_exist_is_refused_at_the_start() -> None:
    with pytest.raises(FileNotFoundError, match="no run at"):
        Places(["nowhere"])


def test_images_are_those_of_the_runs_and_what_was_uploaded(places: Places, preset_config) -> None:
    photos = save(Path("photos/1.png"), noise(1)).parent
    config = json.loads(to_json(preset_config("small")))
    config["data"]["data"] = str(photos.absolute())
    Path("runs/flowers/config.json").write_text(json.dumps(config))
    Path("runs/broken").mkdir()
    Path("runs/broken/config.json").write_text("{")
    kept = places.keep([str(write_zip(Path("new.zip"), {"a.png": encoded(noise(2))}))])
    assert places.data() == {
        "digits": "digits",
        "photos (run flowers)": str(photos.absolute()),
        f"{kept.name} (uploaded)": str(kept),
    }


def test_an_archive_is_kept_as_it_is_and_once(places: Places) -> None:
    archive = write_zip(Path("My photos.zip"), {"../../evil.png": encoded(noise(1))})
    kept = places.keep([str(archive)])
    assert kept.parent == places.uploads
    assert kept.name.startswith("My-photos-")
    assert kept.read_bytes() == archive.read_bytes()
    assert places.keep([str(archive)]) == kept
    assert [path.name for path in places.uploads.iterdir()] == [kept.name]
    assert not list(Path.cwd().parent.rglob("evil.png")), "nothing is extracted"


def test_photos_are_kept_in_a_folder_under_safe_names(places: Places) -> None:
    files = [save(Path("up") / name, noise(i)) for i, name in enumerate(["a b.png", "ü\u202e.PNG"])]
    kept = places.keep([str(file) for file in files])
    assert sorted(path.suffix for path in kept.iterdir()) == [".png", ".png"]
    assert all("\u202e" not in path.name for path in kept.iterdir())


@pytest.mark.parametrize("names", [["notes.txt"], ["a.png", "notes.txt"], ["a.zip", "b.zip"]])
def test_anything_else_is_refused(places: Places, names: list[str]) -> None:
    for name in names:
        Path(name).write_bytes(b"x")
    with pytest.raises(ValueError, match="Drop photos"):
        places.keep(names)


def test_configs_of_runs_are_read_as_the_package_reads_them(places: Places) -> None:
    assert isinstance(places.run("flowers").config, Config)
