"""The models that are kept loaded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from undiffuse.runs.run import Run, create_run
from undiffuse.sampling.model import Model
from undiffuse.studio import models
from undiffuse.studio.models import LOADED, Models
from undiffuse.studio.places import Places


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, preset_config) -> list[str]:
    """Three runs with a checkpoint each, and the names of those that were loaded, in order."""
    names: list[str] = []

    def load(run: Run, images: int | None = None) -> Model:
        names.append(run.name if images is None else f"{run.name}@{images}")
        newest = run.checkpoints()[0 if images is None else -1]
        device = torch.device("cpu")
        return Model(lambda x, sigma, label: None, run.config, device, run=run, checkpoint=newest)  # ty: ignore

    monkeypatch.setattr(models, "load_model", load)
    for i, name in enumerate("abc"):
        run = create_run(Path("runs") / name, preset_config("small"))
        run.save(100, {"ema": {"w": torch.full((1,), float(i))}}, {}, keep=3)
    return names


def test_the_newest_models_stay_and_the_oldest_leaves(opened: list[str]) -> None:
    kept = Models(Places())
    for name in ("a", "b", "a", "c", "a", "b"):
        assert kept.load(name).config.preset == "small"
        assert len(kept) <= LOADED
    assert opened == ["a", "b", "c", "b"]


def test_a_newer_checkpoint_is_loaded(opened: list[str]) -> None:
    kept = Models(Places())
    kept.load("a")
    kept.places.run("a").save(200, {"ema": {"w": torch.ones(1)}}, {}, keep=3)
    kept.load("a")
    assert opened == ["a", "a"]


def test_a_run_without_a_checkpoint_is_a_sentence(preset_config) -> None:
    create_run(Path("runs/new"), preset_config("small"))
    with pytest.raises(FileNotFoundError, match="no whole checkpoint"):
        Models(Places()).load("new")


def test_a_run_is_guided_by_an_earlier_checkpoint_or_another_run(opened: list[str], preset_config) -> None:
    kept = Models(Places())
    kept.places.run("a").save(200, {"ema": {"w": torch.full((1,), 7.0)}}, {}, keep=3)
    other = preset_config("small")
    create_run(Path("runs/odd"), replace(other, class_names=("x", "y", "z"))).save(9, {"ema": {}}, {}, keep=1)
    create_run(Path("runs/untrained"), other)
    assert kept.guides("a") == ["a@100", "c", "b"]
    guided = kept.load("a", "a@100")
    assert guided.guide is not None
    assert guided.guide.checkpoint is not None
    assert guided.guide.checkpoint.images == 100
    assert kept.load("a").guide is None
    assert kept.load("a", "b").guide is kept.load("b")
    assert opened == ["a", "a@100", "b"]


@pytest.mark.parametrize(
    ("guide", "says"),
    [
        ("nothing", "no run 'nothing'"),
        ("../../etc", "no run"),
        ("~nobody/x@3", "no run '~nobody/x'"),
        ("b@many", "is not a count"),
        ("a", "The guide is the model itself"),
        ("odd", "cannot guide"),
    ],
)
def test_a_guide_that_cannot_be_is_a_sentence(guide: str, says: str, opened: list[str], preset_config) -> None:
    odd = replace(preset_config("small"), class_names=("x", "y", "z"))
    create_run(Path("runs/odd"), odd).save(9, {"ema": {"w": torch.zeros(2)}}, {}, keep=1)
    with pytest.raises(ValueError, match=says):
        Models(Places()).load("a", guide)


def test_only_what_can_guide_is_offered(opened: list[str], told_config) -> None:
    for kind in ("nothing", "table", "low-res", "pairs"):
        create_run(Path("runs") / kind, told_config(kind)).save(9, {"ema": {"w": torch.ones(1)}}, {}, keep=1)
    kept = Models(Places())
    assert {kind: kept.guides(kind) for kind in ("nothing", "table", "low-res", "pairs")} == {
        "nothing": [],
        "table": ["nothing"],
        "low-res": ["nothing"],
        "pairs": ["nothing"],
    }
