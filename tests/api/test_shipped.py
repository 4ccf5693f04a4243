"""The models that come with the package are small, load without a network, and make what their names say."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.data.store import DataConfig, open_store
from undiffuse.evaluation.reader import read_samples
from undiffuse.runs.find import SHIPPED, shipped_models

MOST_BYTES = {"digits": 4 * 2**20, "flowers": 12 * 2**20, "cifar10": 12 * 2**20}


@pytest.mark.parametrize("name", shipped_models())
def test_a_model_is_small_in_bf16_and_has_a_card(name: str) -> None:
    folder = SHIPPED / name
    (weights,) = folder.glob("checkpoints/*/ema.safetensors")
    assert weights.stat().st_size <= MOST_BYTES[name]
    assert {tensor.dtype for tensor in safetensors.torch.load_file(weights).values()} == {torch.bfloat16}
    card = (folder / "model.md").read_text(encoding="utf-8")
    assert all(f"## {title}" in card for title in ("Data", "Training", "How good it is", "What it cannot do"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["data"]["data"] == {"flowers": "flowers102"}.get(name, name)
    assert config["data"]["data_root"] is None


@pytest.mark.parametrize("name", shipped_models())
def test_a_model_samples_by_name(name: str) -> None:
    main(["sample", name, "--count", "2", "--steps", "2"])
    (grid,) = Path("runs/shipped").rglob("grid.png")
    assert grid.parent.parent == Path("runs/shipped") / name / "samples"
    assert not (SHIPPED / name / "samples").exists()


def test_the_digits_that_come_with_the_package_can_be_read() -> None:
    model = ud.load("digits")
    assert "200" in repr(model)
    images = model.sample(100, batch=50)
    store = open_store(DataConfig(size=(16, 16)))
    labels = np.arange(100) % 10
    reading = read_samples(store.read(np.arange(len(store))), store.labels, np.asarray(images), labels)
    # Of 500 samples 99% were read as asked for: of 100, 1 (standard deviation 1) is not.
    assert reading.correct >= 0.95


def test_only_the_averaged_weights_are_there() -> None:
    with pytest.raises(ValueError, match="has no part network: it has ema"):
        ud.load("digits", weights="network")
