"""Under pytest every jaxtyping shape and every annotation of undiffuse is enforced; at run time they cost nothing."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # The tests' numbers are the CPU's.
install_import_hook("undiffuse", "beartype.beartype")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def real_data() -> Path:
    """The folder of real pictures named by UNDIFFUSE_DATA; skips without."""
    folder = os.environ.get("UNDIFFUSE_DATA")
    if not folder:
        pytest.skip("UNDIFFUSE_DATA names no folder with real data")
    return Path(folder)
