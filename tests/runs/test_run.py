"""The run folder: finding it, and what a user reads from it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from undiffuse.config import Config
from undiffuse.runs import find
from undiffuse.runs.find import check_guide, find_guide, find_run
from undiffuse.runs.run import NonFiniteError, Run, create_run, open_run


@pytest.fixture
def run(preset_config: Callable[[str], Config]) -> Run:
    return create_run(Path("runs/photos"), preset_config("small"))


def saved(run: Run, images: int, value: float = 1.0, keep: int = 3) -> None:
    run.save(images, {"network": {"w": torch.tensor([value])}}, {"seconds": 2.0}, keep)


def test_a_run_shows_what_it_is(run: Run) -> None:
    assert repr(run) == "Run('runs/photos': preset small, 32x32 RGB, 3 classes, no checkpoint yet)"
    saved(run, 12_000)
    assert repr(run).endswith("trained on 12,000 images)")


def test_a_run_that_was_created_opens_with_its_config(run: Run) -> None:
    assert open_run(Path("runs/photos")) == run
    assert run.name == "photos"
    assert run.log_lines() == []
    assert run.last_good() is None


def test_a_run_is_not_created_over_other_files(run: Run) -> None:
    Path("photos").mkdir()
    Path("photos/mine.txt").touch()
    with pytest.raises(ValueError, match=r"/photos already exists and is not a run: choose another --out"):
        create_run(Path("photos"), run.config)


def test_the_newest_checkpoints_are_kept_and_listed_first(run: Run) -> None:
    for images in (100, 200, 1000):
        saved(run, images, value=images, keep=2)
    assert [checkpoint.images for checkpoint in run.checkpoints()] == [1000, 200]
    newest = run.last_good()
    assert newest is not None
    assert newest.state == {"seconds": 2.0}
    assert newest.tensors("network")["w"].item() == 1000
    with pytest.raises(ValueError, match=r"/1000 has no part ema: it has network\."):
        newest.tensors("ema")


def damage_weights(folder: Path) -> None:
    with open(folder / "network.safetensors", "ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_weights, "network.safetensors is damaged"),
        (lambda folder: (folder / "network.safetensors").unlink(), "No such file"),
        (lambda folder: (folder / "checkpoint.json").unlink(), "checkpoint.json"),
        (lambda folder: (folder / "checkpoint.json").write_text("{"), ""),
        (lambda folder: (folder / "checkpoint.json").write_text('{"state": 3, "parts": {}}'), "state"),
        (lambda folder: (folder / "checkpoint.json").write_text('{"state": {}}'), "parts"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_told_and_the_one_before_it_used(
    damage: Callable[[Path], object], says: str, run: Run, notices: pytest.LogCaptureFixture
) -> None:
    saved(run, 100)
    saved(run, 200)
    newest, before = run.checkpoints()
    assert newest.fault() is None
    damage(newest.folder)
    newest, before = run.checkpoints()  # What was read of one is kept.
    fault = newest.fault()
    assert fault is not None
    assert says in fault
    assert run.last_good() == before
    assert notices.messages == [
        f"The checkpoint {newest.folder} is not whole ({fault}).",
        f"Using the last good checkpoint: {before.folder}",
    ]


def test_equal_weights_have_equal_digests(run: Run) -> None:
    for images, value in ((1, 0.5), (2, 0.5), (3, 0.25)):
        saved(run, images, value)
    third, second, first = (checkpoint.digest("network") for checkpoint in run.checkpoints())
    assert first == second != third


def test_values_that_are_not_finite_are_never_saved(run: Run) -> None:
    with pytest.raises(NonFiniteError, match="network: w"):
        saved(run, 1, float("inf"))
    assert run.checkpoints() == []


def test_runs_are_found_by_path_by_name_and_by_age(run: Run) -> None:
    create_run(Path("runs/older"), run.config)
    os.utime("runs/older", (1, 1))
    assert find_run("runs/older") == find_run("older") == Path("runs/older")
    assert find_run(None) == Path("runs/photos")
    with pytest.raises(FileNotFoundError, match=r"no run at .*/nowhere or in .*/runs: there are older, photos; digits"):
        find_run("nowhere")


def test_without_runs_the_answer_is_how_to_train_one() -> None:
    for name in (None, "nowhere"):
        with pytest.raises(FileNotFoundError, match="train one with: undiffuse train"):
            find_run(name)


@pytest.fixture
def shipped(tmp_path: Path, preset_config: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that comes with one model, roses."""
    folder = tmp_path / "package/models"
    monkeypatch.setattr(find, "SHIPPED", folder)
    return create_run(folder / "roses", preset_config("small")).folder


def test_a_model_of_the_package_is_found_by_name(shipped: Path, run: Run) -> None:
    assert find_run("roses") == shipped
    assert open_run(shipped).output_folder == Path("runs/shipped/roses")
    assert run.output_folder == run.folder
    with pytest.raises(FileNotFoundError, match=r"There is no run at .*: there are photos; roses come with undiffuse"):
        find_run("tulips")


def test_a_run_of_ones_own_goes_before_a_model_of_the_package(shipped: Path, run: Run) -> None:
    own = create_run(Path("runs/roses"), run.config)
    assert find_run("roses") == own.folder


def test_no_name_leads_out_of_the_package(shipped: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_run("../models/tulips")


def test_a_guide_is_looked_for_before_anything_else_is_done(run: Run) -> None:
    create_run(Path("runs/old@100"), run.config)
    assert find_guide("photos") == ("photos", None)
    assert find_guide("photos@20k") == ("photos", 20_000)
    assert find_guide("old@100") == ("old@100", None), "the name of a folder"
    assert find_guide("old@100@20k") == ("old@100", 20_000)
    for good in (None, "photos", "photos@20k", "old@100"):
        check_guide(good, None)
    with pytest.raises(FileNotFoundError, match=r"There is no run at .*/nowhere"):
        check_guide("nowhere@20k", None)
    with pytest.raises(ValueError, match="--guide RUN@IMAGES:"):
        check_guide("photos@many", None)
    with pytest.raises(ValueError, match="--guidance-interval"):
        check_guide(None, "often")
