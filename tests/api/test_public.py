"""The public face: names, laziness, silence, and the same words as the command line."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import undiffuse as ud
from undiffuse.cli import COMMANDS

TINY = {"network.channels": 16, "network.groups": 4}

API_NAMES = {
    name: {"import": "import_model", "tune-ema": "tune_ema", "tune-sampler": "tune_sampler"}.get(name, name)
    for name in COMMANDS
    if name not in ("doctor", "studio")
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/flowers of two classes and photos/, made once."""
    folder = tmp_path_factory.mktemp("public")
    rng = np.random.default_rng(0)
    for name in ("rose", "iris"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (5, 5, 3), np.uint8)
            Image.fromarray(pixels).resize((40, 36)).save(folder / "photos" / name / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("UNDIFFUSE_CACHE", str(folder / "cache"))
        ud.train("photos/", size=16, images=64, out="runs/flowers", set=TINY)
    return folder


@pytest.fixture
def in_its_folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def test_the_package_loads_torch_only_when_a_name_is_used() -> None:
    code = "import undiffuse, sys; assert 'torch' not in sys.modules; undiffuse.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_sampling_and_training_wait_for_no_library_that_they_do_not_use() -> None:
    slow = {"torchvision", "sklearn", "scipy", "torch_fidelity", "torch._dynamo", "torch.distributed.fsdp"}
    code = f"import undiffuse, sys; undiffuse.sample, undiffuse.train; print(*{slow} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120).stdout == b"\n"


def test_every_public_name_is_there_and_documented() -> None:
    for name in ud.__all__:
        assert getattr(ud, name).__doc__, name
        assert name in dir(ud)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = ud.trian  # ty: ignore[missing-attribute]


def test_the_type_stub_has_the_public_names() -> None:
    stub = Path(ud.__file__).with_suffix(".pyi").read_text()
    lines = [f"from undiffuse.{module} import {name} as {name}" for name, module in ud.WHERE.items()]
    assert [line for line in lines if line not in stub.splitlines()] == []


@pytest.mark.parametrize("name", [name for name in ud.__all__ if name.islower() and name != "samplers"])
def test_every_function_has_an_example_and_says_what_it_takes(name: str) -> None:
    text = inspect.getdoc(getattr(ud, name)) or ""
    assert "Example:" in text


@pytest.mark.parametrize("command", API_NAMES)
def test_a_function_takes_every_option_of_its_command(command: str) -> None:
    module, _, function = COMMANDS[command][0].partition(":")
    options = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    parameters = inspect.signature(getattr(ud, API_NAMES[command])).parameters
    old_form = {"fake", "fake_split", "size"} if command == "evaluate" else set()  # measure's.
    missing = set(options) - set(parameters) - old_form
    assert missing - ({"to"} if command == "export" else set()) == set()


def test_the_seven_lines_of_the_readme_work(in_its_folder: None, capsys: pytest.CaptureFixture) -> None:
    model = ud.load("runs/flowers")
    images = model.sample(8, label="rose", seed=0)
    assert images.shape == (8, 16, 16, 3)
    images.save_grid("grid.png")
    levels = [float(step.sigma) for step in model.steps(8, sampler="heun", steps=18)]
    assert len(levels) == 18
    x = 10 * np.ones((2, 3, 16, 16), np.float32)
    assert tuple(model.denoise(x, 10.0, "iris").shape) == x.shape
    run = ud.train("photos/", size=16, minutes=0.01, out="runs/again", set=TINY)
    assert ud.evaluate(run, features="pixels", count=8)["FD-pixels"].value > 0
    assert ud.measure(real="photos/", fake=images, features="pixels")["FD-pixels"].value > 0
    assert ud.explore("photos/").duplicates is not None
    assert capsys.readouterr() == ("", ""), "quiet by default"


def test_errors_are_exceptions_with_the_commands_sentences(in_its_folder: None) -> None:
    with pytest.raises(FileNotFoundError, match="There is no run at"):
        ud.load("nowhere")
    with pytest.raises(FileNotFoundError, match="There is no data at"):
        ud.train("nowhere/")
    with pytest.raises(ValueError, match="--images many is not a count"):
        ud.train("photos/", images="many")


def test_sample_fills_a_folder_and_makes_only_what_is_missing(in_its_folder: None, tmp_path: Path) -> None:
    gallery = ud.sample("flowers", count=3, steps=2, out=tmp_path / "out", film=True)
    before = {path.name: path.stat().st_mtime_ns for path in gallery.folder.glob("0*.png")}
    assert len(before) == 3
    assert (gallery.folder / "film.gif").exists()
    ud.sample("flowers", count=4, steps=2, out=tmp_path / "out")
    after = {path.name: path.stat().st_mtime_ns for path in gallery.folder.glob("0*.png")}
    assert len(after) == 4
    assert before.items() <= after.items()
