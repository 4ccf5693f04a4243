"""Inception with random weights, made once."""

from pathlib import Path

import pytest
from helpers.features import save_random_inception


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_inception(tmp_path_factory.mktemp("weights") / "random-inception.pth")
