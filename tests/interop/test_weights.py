"""Weights files: what is read, and that nothing in a hostile one is run, trusted or unpacked."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from undiffuse.interop.weights import read_tensors

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.5])}


def torch_saved(value: Any, name: str = "model.pt") -> Path:
    file = Path(name)
    torch.save(value, file)
    return file


def refusal(file: Path) -> str:
    """The error for a refused file: one sentence with its path."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_tensors(file)
    message = str(error.value)
    assert str(file.absolute()) in message
    assert "\n" not in message
    return message


def same(read: dict[str, Tensor]) -> bool:
    return read.keys() == WEIGHTS.keys() and all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_every_suffix_is_read(suffix: str) -> None:
    file = Path(f"model{suffix}")
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(WEIGHTS, file)
    assert same(read_tensors(file))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"state_dict": tensors},
        lambda tensors: {"model": tensors, "epoch": 3},
        lambda tensors: {"ema": {"state_dict": tensors}},
        lambda tensors: {f"module.{name}": t for name, t in tensors.items()},
        lambda tensors: {f"_orig_mod.{name}": t for name, t in tensors.items()},
        lambda tensors: {"model": {f"module._orig_mod.module.{name}": t for name, t in tensors.items()}},
    ],
)
def test_containers_and_prefixes_around_weights_are_removed(wrap: Callable[[dict], dict]) -> None:
    assert same(read_tensors(torch_saved(wrap(WEIGHTS))))


def test_a_prefix_that_only_some_names_share_is_kept() -> None:
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read_tensors(torch_saved(mixed)).keys() == mixed.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_float32(dtype: torch.dtype) -> None:
    read = read_tensors(torch_saved({name: t.to(dtype) for name, t in WEIGHTS.items()}))
    assert {t.dtype for t in read.values()} == {torch.float32}
    assert same(read)


class Malicious:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.ckpt", "model.pth"])
@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch.save"])
def test_code_in_a_pickle_does_not_run(name: str, plain: bool) -> None:
    file = Path(name)
    if plain:
        file.write_bytes(pickle.dumps({"a": Malicious()}))
    else:
        torch.save({"a": Malicious()}, file)
    assert "more than weights" in refusal(file)
    assert not Path("ran").exists()
    # Opened the usual way, it does run.
    pickle.loads(file.read_bytes()) if plain else torch.load(file, weights_only=False)
    assert Path("ran").exists()


def test_a_pkl_is_refused_unopened() -> None:
    file = Path("network-snapshot.pkl")
    file.write_bytes(pickle.dumps(Malicious()))
    assert "can run its author's code" in refusal(file)
    assert not Path("ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_a_damaged_file_is_refused(suffix: str, damage: Callable[[bytes], bytes]) -> None:
    file = Path(f"model{suffix}")
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(WEIGHTS, file)
    file.write_bytes(damage(file.read_bytes()))
    assert "damaged" in refusal(file)


def test_a_compressed_archive_is_refused_unopened() -> None:
    file = torch_saved({"a": torch.zeros(100_000)})
    bomb = Path("bomb.pt")
    with zipfile.ZipFile(file) as stored, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in stored.namelist():
            archive.writestr(member, stored.read(member))
    assert bomb.stat().st_size < 10_000
    assert "is compressed" in refusal(bomb)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "holds no weights"),
        ([1, 2], "does not hold weights by name"),
        ({"model": {"model": {"model": {"model": WEIGHTS}}}}, "does not hold weights by name"),
        ({"model": WEIGHTS, "ema": WEIGHTS}, "holds weights as model and as ema"),
        ({"a": torch.ones(1), "step": 3}, '"step" is not a tensor'),
        ({0: torch.ones(1)}, "0 is not a tensor"),
        ({"a": torch.arange(3)}, '"a" is torch.int64'),
        ({"a": torch.ones(1, dtype=torch.complex64)}, '"a" is torch.complex64'),
        ({"a": torch.ones(2, 2).to_sparse()}, '"a" is not a tensor'),
        ({"a": torch.ones(1).expand(10**6, 10**6)}, "claims more numbers than it holds"),
        (dict.fromkeys("abcdefghijkl", torch.ones(10**4)), "claims more numbers than it holds"),
        ({"a\x1b[2J\n": 3}, "a\N{REPLACEMENT CHARACTER}.*is not a tensor"),
        ({"a": torch.tensor([1.0, float("nan")])}, "infinite values or NaN"),
        ({"a": torch.tensor([1.0, float("-inf")])}, "infinite values or NaN"),
        ({"a": torch.ones(3, device="meta")}, "not a weight|more than weights"),
    ],
)
def test_anything_but_weights_is_refused(value: Any, message: str) -> None:
    assert re.search(message, refusal(torch_saved(value)))


def test_a_missing_file_and_another_suffix_are_refused() -> None:
    assert "There is no file" in refusal(Path("none.pt"))
    Path("model.onnx").write_bytes(b"")
    assert "not a weights file" in refusal(Path("model.onnx"))
    Path("folder.pt").mkdir()
    assert "There is no file" in refusal(Path("folder.pt"))
