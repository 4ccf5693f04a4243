"""The models that are kept loaded."""

from pathlib import Path

import pytest
import torch

from undiffuse import api
from undiffuse.runs.run import create_run
from undiffuse.sampling.model import Model
from undiffuse.studio.models import LOADED, Models
from undiffuse.studio.places import Places


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, preset_config) -> list[str]:
    """Three runs with a checkpoint each, and the names of those that were loaded, in order."""
    names: list[str] = []

    def load(run) -> Model:
        names.append(run.name)
        return Model(lambda x, sigma, label: None, run.config, torch.device("cpu"), run=run)  # ty: ignore

    monkeypatch.setattr(api, "load", load)
    for name in "abc":
        run = create_run(Path("runs") / name, preset_config("small"))
        run.save(100, {"ema": {"w": torch.zeros(1)}}, {}, keep=3)
    return names


def test_the_newest_models_stay_and_the_oldest_leaves(opened: list[str]) -> None:
    models = Models(Places())
    for name in ("a", "b", "a", "c", "a", "b"):
        assert models.load(name).config.preset == "small"
        assert len(models) <= LOADED
    assert opened == ["a", "b", "c", "b"]


def test_a_newer_checkpoint_is_loaded(opened: list[str]) -> None:
    models = Models(Places())
    models.load("a")
    models.places.run("a").save(200, {"ema": {"w": torch.ones(1)}}, {}, keep=3)
    models.load("a")
    assert opened == ["a", "a"]


def test_a_run_without_a_checkpoint_is_a_sentence(preset_config) -> None:
    create_run(Path("runs/new"), preset_config("small"))
    with pytest.raises(FileNotFoundError, match="no whole checkpoint"):
        Models(Places()).load("new")
