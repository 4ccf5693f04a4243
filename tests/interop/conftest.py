"""Other programs' models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # Before huggingface_hub is imported: no test uses the network.


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a diffusers pipeline in a new folder; see `foreign.save_pipeline`."""
    from helpers.foreign import save_pipeline

    return lambda scheduler=None, **settings: save_pipeline(tmp_path_factory.mktemp("theirs"), scheduler, **settings)
