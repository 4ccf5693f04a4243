"""Which run, and which guide: networks of one's own, and what is said of a guide wherever it took part."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.networks import TinyConfig

import undiffuse as ud
from undiffuse.api.runs import as_run, with_guide
from undiffuse.runs.run import create_run
from undiffuse.training import previews

TINY = {"network.channels": 8, "network.groups": 4, "network.patch": 1, "training.microbatch": 64}
GUIDED: dict[str, Any] = {"count": 2, "steps": 2, "guidance": 2.0}


@pytest.fixture
def own(preset_config) -> Path:
    """A run whose network is the user's own, for 32x32 images in color with three classes."""
    config = preset_config("small")
    network = TinyConfig(size=config.network.size, image_channels=3, classes=3)
    run = create_run(Path("runs/own"), replace(config, network=network))
    weights = run.config.build_network().state_dict()
    weaker = {name: 0.5 * tensor for name, tensor in weights.items()}
    run.save(100, {"network": weaker, "ema": weaker}, {}, keep=2)
    run.save(500, {"network": weights, "ema": weights}, {}, keep=2)
    return run.folder


def test_a_guide_of_ones_own_network_is_read_with_its_class(own: Path) -> None:
    model = ud.load(own, network=TinyConfig)
    for guide in (f"{own}@100", "own@100"):
        with pytest.raises(ValueError, match="network=TinyConfig"):
            with_guide(model, guide)
        guided = with_guide(model, guide, network=TinyConfig)
        assert guided.guide is not None
        assert guided.guide.origin[1].images == 100
        assert guided.guide.config.network == model.config.network
    images = ud.load(own, guide="own@100", network=TinyConfig).sample(**GUIDED)
    assert (images == guided.sample(**GUIDED)).all()
    assert np.abs(images.astype(int) - model.sample(2, steps=2, guidance=1.0)).max() > 1
    gallery = ud.sample(own, guide="own@100", network=TinyConfig, **GUIDED)
    assert (gallery.pixels([0, 1]) == images.to_torch()).all()
    edited = ud.edit(own, "vary", image=images[0], guide="own@100", label=1, network=TinyConfig, **GUIDED)
    for folder in (gallery.folder, edited.gallery.folder):
        assert json.loads((folder / "samples.json").read_text())["guide"]["images"] == 100


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/strong and runs/weak, which have no classes: nothing but a guide can guide them."""
    folder = tmp_path_factory.mktemp("guided")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("UNDIFFUSE_CACHE", str(folder / "cache"))
        patch.setattr(previews, "PREVIEWS", 0)
        ud.train("digits", size=8, images=128, batch=64, out="runs/strong", unconditional=True, set=TINY)
        ud.train("digits", size=8, images=64, batch=64, out="runs/weak", unconditional=True, set=TINY)
    return folder


@pytest.fixture
def runs(trained: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ud.Run, ud.Run]:
    """A run, and a weaker one."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(trained / "cache"))
    return as_run("strong"), as_run("weak")


def test_the_guide_is_named_wherever_it_took_part(runs: tuple[ud.Run, ud.Run]) -> None:
    strong, weak = runs
    digest = weak.checkpoints()[0].digest("ema")
    evaluation = ud.evaluate(strong, guide=weak, features="pixels", real_count=40, **GUIDED)
    gallery = ud.sample(strong, guide="weak", **GUIDED)
    edited = ud.edit(strong, "vary", image=np.zeros((8, 8), np.uint8), guide="runs/weak", **GUIDED)
    written = [json.loads((each.folder / "samples.json").read_text()) for each in (gallery, edited.gallery)]
    for record in (evaluation.made_by, *written):
        guide = record["guide"]
        assert (guide["run"], guide["images"], guide["weights_sha256"]) == ("weak", 64, digest)
    assert "by-weak-64" in gallery.folder.name
    assert "weak" in Path("runs/strong/evaluation/report.html").read_text()
    comparison = ud.compare(strong, guide=weak, features="pixels", real_count=40, count=2, steps=[2], guidance=2.0)
    assert comparison.rows[0]["guidance"] == "2 by weak after 64"
    assert comparison.rows[0]["NFE"] == evaluation.made_by["nfe"] == 4


def test_a_model_keeps_the_guide_that_it_has(runs: tuple[ud.Run, ud.Run]) -> None:
    strong, weak = runs
    model = ud.load(strong, guide=weak)
    evaluation = ud.evaluate(model, features="pixels", real_count=40, **GUIDED)
    assert evaluation.made_by["guide"]["run"] == "weak"
    comparison = ud.compare([model, strong], features="pixels", real_count=40, count=2, steps=[2])
    assert [row["guidance"].partition(" by ")[2] for row in comparison.rows] == ["weak after 64", ""]
    gallery = ud.sample(model, **GUIDED)
    edited = ud.edit(model, "vary", image=np.zeros((8, 8), np.uint8), **GUIDED)
    for folder in (gallery.folder, edited.gallery.folder):
        assert json.loads((folder / "samples.json").read_text())["guide"]["run"] == "weak"
