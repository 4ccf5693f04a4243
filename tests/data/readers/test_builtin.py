import pickle
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.making import contents, opened, write_tar
from helpers.serving import closed_port, md5, serving
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from undiffuse.data.open import open_source
from undiffuse.data.paths import DATASETS
from undiffuse.data.readers import builtin


def test_every_named_dataset_has_a_reader_of_its_name() -> None:
    assert all(callable(getattr(builtin, name)) for name in DATASETS)


def test_digits_are_scikit_learns() -> None:
    store = opened("digits", size=(8, 8))
    bunch = load_digits()
    assert len(store) == 1797
    assert store.class_names == tuple("0123456789")
    assert store.channels == 1
    assert (store.labels == bunch.target).all()
    # 17 levels, 0 to 16, spread over 0 to 255.
    assert (store.read(range(1797))[..., 0] == np.round(bunch.images * 255 / 16)).all()
    assert opened("digits").size == (16, 16)


def test_digits_have_no_splits() -> None:
    assert opened("digits", size=(8, 8), split="all").folder == opened("digits", size=(8, 8)).folder
    with pytest.raises(ValueError, match="digits has no split test"):
        open_source("digits", split="test")


class SmallCifar:
    """CIFAR-10 in its own format with 3 images a batch; the labels are the batch's number and the two after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        rng = np.random.default_rng(0)
        self.pixels = {name: rng.integers(0, 256, (3, 32, 32, 3), np.uint8) for name in names}
        self.labels = {name: [i, i + 1, i + 2] for i, name in enumerate(names)}
        self.classes = [f"class {i}" for i in range(10)]
        files = {
            name: pickle.dumps({"data": self.pixels[name].transpose(0, 3, 1, 2).reshape(3, -1), "labels": labels})
            for name, labels in self.labels.items()
        }
        files["batches.meta"] = pickle.dumps({"label_names": self.classes})
        members = {f"cifar-10-batches-py/{name}": content for name, content in files.items()}
        self.archive = write_tar(Path("served.tar.gz"), members).read_bytes()
        sums = [[name, md5(files[name])] for name in names]
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(self.archive))
        monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
        monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
        monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
        monkeypatch.setattr(CIFAR10, "url", closed_port() + CIFAR10.filename)

    def expected(self, part: str, names: list[str]) -> dict[str, tuple[str, bytes]]:
        pairs = [
            (self.classes[label], pixels.tobytes())
            for name in names
            for label, pixels in zip(self.labels[name], self.pixels[name], strict=True)
        ]
        return {f"{part}/{i:05d}": pair for i, pair in enumerate(pairs)}


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> SmallCifar:
    return SmallCifar(monkeypatch)


def test_cifar10_offline_says_within_seconds_what_to_put_where(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", closed_port() + CIFAR10.filename)
    began = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        open_source("cifar10")
    assert time.monotonic() - began < 10
    sentence = str(caught.value)
    assert "cannot be reached" in sentence
    assert "cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a)" in sentence
    assert f"put it at {tmp_path / 'data' / 'cifar-10-python.tar.gz'}." in sentence
    assert "\n" not in sentence
    assert not (tmp_path / "data").exists()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(builtin, "OFFLINE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/{CIFAR10.filename}")
        began = time.monotonic()
        with pytest.raises(FileNotFoundError, match="cannot be reached"):
            open_source("cifar10")
        assert time.monotonic() - began < 5


def test_a_server_that_does_not_speak_http_is_unreachable(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.getsockname()[1]}/{CIFAR10.filename}")
        with pytest.raises(FileNotFoundError, match="cannot be reached"):
            open_source("cifar10")
        thread.join()


def test_cifar10_files_in_place_work_without_a_network(tmp_path: Path, cifar: SmallCifar, notices) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_source("cifar10", "downloads")
    destination = Path(str(caught.value).rpartition("put it at ")[2].removesuffix("."))
    assert destination == tmp_path / "downloads" / "cifar-10-python.tar.gz"
    destination.parent.mkdir()
    destination.write_bytes(cifar.archive)

    train = opened("cifar10", data_root="downloads")
    assert train.class_names == tuple(cifar.classes)
    assert train.shape == (3, 32, 32)
    in_train = cifar.expected("train", [f"data_batch_{i}" for i in range(1, 6)])
    in_test = cifar.expected("test", ["test_batch"])
    assert contents(train) == in_train
    assert any("training images" in notice for notice in notices.messages)
    destination.unlink()  # It has been unpacked.
    assert contents(opened("cifar10", data_root="downloads", split="test")) == in_test
    everything = opened("cifar10", data_root="downloads", split="all")
    assert contents(everything) == {**in_train, **in_test}
    assert all(original.name.startswith(f"{original.split}/") for original in everything.originals())
    with pytest.raises(ValueError, match="CIFAR-10 has no split val"):
        open_source("cifar10", "downloads", "val")


def test_cifar10_is_downloaded(tmp_path: Path, cifar: SmallCifar, monkeypatch) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / CIFAR10.filename).write_bytes(cifar.archive)
    with serving(tmp_path / "served") as url:
        monkeypatch.setattr(CIFAR10, "url", url + CIFAR10.filename)
        store = opened("cifar10", data_root="downloads", split="test")
    assert contents(store) == cifar.expected("test", ["test_batch"])
    assert (tmp_path / "downloads" / CIFAR10.filename).read_bytes() == cifar.archive


def test_a_damaged_file_is_reported_as_damaged(tmp_path: Path, cifar: SmallCifar) -> None:
    file = tmp_path / "data" / CIFAR10.filename
    file.parent.mkdir()
    file.write_bytes(cifar.archive[:-100])
    with pytest.raises(FileNotFoundError, match="is damaged: download") as caught:
        open_source("cifar10")
    assert str(caught.value).startswith(str(file))
    assert CIFAR10.tgz_md5 in str(caught.value)


def test_a_damaged_file_is_downloaded_again(tmp_path: Path, cifar: SmallCifar, monkeypatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "served").mkdir()
    (tmp_path / "data" / CIFAR10.filename).write_bytes(b"damaged")
    (tmp_path / "served" / CIFAR10.filename).write_bytes(cifar.archive)
    with serving(tmp_path / "served") as url:
        monkeypatch.setattr(CIFAR10, "url", url + CIFAR10.filename)
        assert open_source("cifar10").total_images == 15


def test_a_download_with_another_checksum_is_not_opened(tmp_path: Path, cifar: SmallCifar, monkeypatch) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / CIFAR10.filename).write_bytes(cifar.archive + b"more")
    with serving(tmp_path / "served") as url:
        monkeypatch.setattr(CIFAR10, "url", url + CIFAR10.filename)
        with pytest.raises(FileNotFoundError, match="could not be downloaded") as caught:
            open_source("cifar10")
    assert CIFAR10.tgz_md5 in str(caught.value)
    assert str(tmp_path / "data" / CIFAR10.filename) in str(caught.value)
    assert not (tmp_path / "data" / "cifar-10-batches-py").exists()


def test_a_batch_that_was_changed_is_never_unpickled(tmp_path: Path, cifar: SmallCifar) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / CIFAR10.filename).write_bytes(cifar.archive)
    open_source("cifar10")
    (tmp_path / "data" / CIFAR10.filename).unlink()
    (tmp_path / "data" / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FileNotFoundError, match="cannot be reached"):
        open_source("cifar10")
    assert not (tmp_path / "executed").exists()
