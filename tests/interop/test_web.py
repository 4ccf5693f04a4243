"""The folder of the page: its noise, its noise levels, and what is written where."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers.commands import refused
from helpers.onnx_networks import SmallConfig
from helpers.serving import serving

from undiffuse.api import exchange
from undiffuse.config import Config, SamplingConfig, TrainingConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop import onnx_runtime_web
from undiffuse.interop.onnx_runtime_web import FILES, runtime_files
from undiffuse.runs.run import Run, create_run
from undiffuse.sampling.loading import load_model
from undiffuse.utils.randomness import ImageRandomness

THREE_CLASSES = SmallConfig(size=(4, 6), classes=3)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A package of onnxruntime-web that is the published one, as far as its digest says."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in (*FILES.values(), "package/README.md"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    monkeypatch.setattr(onnx_runtime_web, "SHA256", hashlib.sha256(content.getvalue()).hexdigest())
    return content.getvalue()


@pytest.fixture
def cached(package: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package where it is looked for, on a machine without a network."""
    monkeypatch.setattr(onnx_runtime_web, "REGISTRY", "http://127.0.0.1:9/")
    file = Path("cache").absolute() / f"onnxruntime-web-{onnx_runtime_web.VERSION}.tgz"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(package)
    return file


@pytest.fixture
def make_run(preset_config: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes runs/one, whose ONNX file is taken from nowhere: writing it is tested elsewhere."""
    monkeypatch.setattr(exchange, "to_onnx", lambda model, metadata: b"ONNX")

    def make(network: SmallConfig = THREE_CLASSES, **changes: Any) -> Run:
        names = ("<b>cats</b>", "dogs", "snow")[: network.classes]
        config = replace(preset_config("cifar10-edm"), class_names=names, network=network)
        config = replace(config, **{"training": TrainingConfig(label_dropout=0.1), **changes})
        run = create_run(Path("runs/one"), config)
        weights = config.build_network().state_dict()
        run.save(500, {"network": weights, "ema": weights}, {}, keep=1)
        return run

    return make


def settings(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text())


def test_its_seeds_and_noise_levels_are_the_command_lines(make_run: Callable[..., Run], cached: Path) -> None:
    run = make_run(sampling=SamplingConfig(guidance=2.0, steps=9, clip=True, guidance_interval=(0.3, 5.0)))
    folder = exchange.export(run, "web", "page")
    told, model = settings(folder), load_model(run, torch.device("cpu"))
    assert [told[name] for name in ("guidance", "guidance_interval", "clip", "steps")] == [2.0, [0.3, 5.0], True, 9]
    assert [*told["sigmas"]] == ["2", "4", "6", "8", "9", "12", "18", "35"]
    for steps, sigmas in told["sigmas"].items():
        made = [float(step.sigma) for step in model.steps(1, sampler=told["sampler"], steps=int(steps))]
        assert sigmas[1:] == made
    noise = np.fromfile(folder / "noise.bin", "<f4").reshape(told["seeds"], *told["shape"])
    expected = ImageRandomness("sampling", 0, [0, 63]).normal(3, 4, 6).numpy()
    assert told["seeds"] == 64
    assert np.array_equal(noise[[0, 63]], expected)


def test_it_is_whole_and_refers_to_its_own_files_alone(make_run: Callable[..., Run], cached: Path) -> None:
    folder = exchange.export(make_run(), "web", "page")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files["ort/ort.js"] == FILES["ort/ort.js"].encode()
    assert b"MIT License" in files["ort/LICENSE.txt"]
    assert files["model.onnx"] == b"ONNX"
    for name, size in settings(folder)["bytes"].items():
        assert size == len(files[name])
    text = b"".join(files[name] for name in files if name.endswith((".html", ".js", ".css")))
    assert b"https:" not in text
    assert b"http:" not in text.replace(b"http://localhost:8000", b"")
    kept = json.loads(files["offline.js"].decode().split("const FILES = ")[1].split(";\n")[0])
    assert sorted(kept) == sorted(
        ["./", *(name for name in files if not name.endswith(".txt") and name != "offline.js")]
    )


def test_a_name_is_text_in_the_page(make_run: Callable[..., Run], cached: Path) -> None:
    run = make_run()
    run.folder.rename("runs/<script>x")
    folder = exchange.export(replace(run, folder=Path("runs/<script>x")), "web", "page")
    page = (folder / "index.html").read_text()
    assert "&lt;script&gt;x" in page
    assert "<script>x" not in page
    assert settings(folder)["class_names"][0] == "<b>cats</b>"  # Which the page sets as text.


@pytest.mark.parametrize(
    ("changes", "guidance", "unlabeled"),
    [
        ({"network": SmallConfig(size=(4, 4))}, 1.0, False),
        ({"training": TrainingConfig(label_dropout=0.0), "sampling": SamplingConfig(guidance=2.0)}, 1.0, False),
        ({"sampling": SamplingConfig(sampler="ancestral", steps=1000)}, 1.0, True),
    ],
)
def test_guidance_is_offered_where_it_was_learned(
    changes: dict[str, Any], guidance: float, unlabeled: bool, make_run: Callable[..., Run], cached: Path
) -> None:
    told = settings(exchange.export(make_run(**changes), "web", "page"))
    assert (told["guidance"], told["unlabeled"], told["steps"]) == (guidance, unlabeled, 18)


def test_a_student_brings_the_noise_that_its_steps_add(make_run: Callable[..., Run], cached: Path) -> None:
    sampling = SamplingConfig(sampler="consistency", steps=2)
    run = make_run(diffusion=DiffusionConfig(objective="consistency"), sampling=sampling)
    folder = exchange.export(run, "web", "page")
    told = settings(folder)
    assert (told["sampler"], told["steps"], told["draws"]) == ("consistency", 2, 4)
    assert told["sigmas"]["2"] == [80.0, 0.821, 0.0]
    assert list(told["sigmas"]) == ["1", "2", "4"]
    noise = np.frombuffer((folder / "noise.bin").read_bytes(), "<f4").reshape(64, 4, 3, 4, 6)
    randomness = ImageRandomness("sampling", 0, [5])
    assert np.array_equal(noise[5], torch.stack([randomness.normal(3, 4, 6)[0] for _ in range(4)]).numpy())


def test_large_images_bring_the_noise_of_fewer_seeds(make_run: Callable[..., Run], cached: Path) -> None:
    folder = exchange.export(make_run(network=SmallConfig(size=(512, 512))), "web", "page")
    assert settings(folder)["seeds"] == 5
    assert (folder / "noise.bin").stat().st_size <= 2**24


@pytest.mark.parametrize("to", ["web", "onnx"])
def test_what_is_at_the_target_stays(
    to: Literal["web", "onnx"], make_run: Callable[..., Run], cached: Path, capsys: pytest.CaptureFixture
) -> None:
    run = make_run()
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("")
    Path("file").write_text("mine")
    for target in ("taken", "file"):
        with pytest.raises(ValueError, match=f"{target} already exists: choose another place, or remove it"):
            exchange.export(run, to, target)
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.txt"]
    assert Path("file").read_text() == "mine"
    assert "--label is for diffusers" in refused(capsys, "export", "digits", "--to", to, "new", "--label", "3")


def test_a_folder_is_no_onnx_file(make_run: Callable[..., Run]) -> None:
    Path("empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is a folder: name a file, such as one\.onnx"):
        exchange.export(make_run(), "onnx", "empty")


def test_an_onnx_file_is_named_after_the_run(make_run: Callable[..., Run]) -> None:
    assert exchange.export(make_run(), "onnx") == Path("exported/one.onnx")
    assert [(path.name, path.read_bytes()) for path in Path("exported").iterdir()] == [("one.onnx", b"ONNX")]


def test_the_package_is_downloaded_once(package: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("served").mkdir()
    Path(f"served/onnxruntime-web-{onnx_runtime_web.VERSION}.tgz").write_bytes(package)
    with serving(Path("served")) as url:
        monkeypatch.setattr(onnx_runtime_web, "REGISTRY", url)
        found = runtime_files()
    assert found == runtime_files() == {name: member.encode() for name, member in FILES.items()}


def test_offline_nothing_is_written_and_the_message_says_everything(make_run: Callable[..., Run], cached: Path) -> None:
    cached.unlink()
    with pytest.raises(FileNotFoundError) as error:
        exchange.export(make_run(), "web", "page")
    name = cached.name.removesuffix(".tgz").replace("web-", "web@")
    for word in ("cannot be reached", str(cached), onnx_runtime_web.SHA256, f"npm pack {name}"):
        assert word in str(error.value)
    assert not Path("page").exists()


def test_another_package_in_its_place_is_not_opened(cached: Path) -> None:
    cached.write_bytes(b"\x1f\x8b something else")
    with pytest.raises(ValueError, match=r"is not onnxruntime-web-.*\.tgz as it was published: delete it"):
        runtime_files()
