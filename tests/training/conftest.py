"""A run small enough to train in a second: digits at 8x8, a network of 20,000 parameters."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from undiffuse.config import Config, OptimizerConfig, TrainingConfig
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.networks.unet import UNetConfig
from undiffuse.presets import configure
from undiffuse.training import previews
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.observers import Observer
from undiffuse.training.session import begin_or_resume, train_run
from undiffuse.training.signals import StopRequest
from undiffuse.utils.world import World

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Decoded once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(tmp_path_factory.mktemp("store")))
        return open_store(DataConfig(size=(8, 8)))


@pytest.fixture(scope="session")
def tiny(store: Store) -> Config:
    """Two thousand images in batches of 100."""
    config = configure("digits", store, DataConfig(size=(8, 8), channels=1), seed=0)
    network = UNetConfig(
        size=(8, 8),
        image_channels=1,
        classes=10,
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        attention_resolutions=(4,),
        groups=4,
        dropout=0.1,
    )
    return replace(
        config,
        network=network,
        optimizer=OptimizerConfig(warmup_images=200),
        training=TrainingConfig(
            total_images=2000,
            total_minutes=None,
            batch=100,
            microbatch=128,
            ema_halflife_images=500,
            held_out_images=0,
            log_batches=2,
        ),
    )


@pytest.fixture
def run_training(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Trains a config in a folder, without previews."""
    monkeypatch.setattr(previews, "PREVIEWS", 0)

    def run(
        folder: Path,
        config: Config,
        options: CheckpointOptions = CheckpointOptions(),  # noqa: B008
        observers: Sequence[Observer | Callable] = (),
    ) -> bool:
        with StopRequest() as stop:
            return train_run(begin_or_resume(folder, config, len(store), ALONE), store, ALONE, stop, options, observers)

    return run
