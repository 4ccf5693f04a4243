"""Which precision is chosen where, and how many workers."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers.accelerator import emulated

from undiffuse.utils import device
from undiffuse.utils.device import (
    autocast,
    compile_network,
    compute_dtype,
    has_fast_bf16,
    loader_workers,
    read_later,
    resolved,
    state_dtype,
    upload,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("name", "fast"), [("avx512_bf16", True), ("amx_bf16", True), ("bf16", True), ("avx2", False)])
def test_bf16_is_used_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, name: str, fast: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True}, raising=False)
    assert has_fast_bf16(CPU) == fast
    assert compute_dtype(CPU, "auto") == (torch.bfloat16 if fast else torch.float32)
    assert compute_dtype(CPU, "fp32") == torch.float32
    assert compute_dtype(CPU, "bf16") == torch.bfloat16


def test_samplers_keep_float64_where_the_device_has_it() -> None:
    assert state_dtype(CPU) == torch.float64
    assert state_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("cores", "processes", "workers"), [(16, 1, 8), (8, 2, 3), (1, 1, 0), (2, 4, 0)])
def test_processes_on_gpus_share_the_cores_for_loading(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert loader_workers(torch.device("cuda"), 1) == workers
    assert loader_workers(CPU, 1) == 0


def test_what_does_not_fit_into_shared_memory_is_prepared_by_fewer(
    monkeypatch: pytest.MonkeyPatch, notices: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(device, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**27, 2**26, 2**26))
    batch_bytes = 128 * 2 * 4 * 3 * 64 * 64
    assert loader_workers(torch.device("cuda"), batch_bytes) == 2  # 2 * 2 * 12 MiB of 64.
    assert "64 MiB free, enough for 2 of 8 loader processes" in notices.messages[0]
    monkeypatch.setattr(device, "SHARED_MEMORY", tmp_path / "none")
    assert loader_workers(torch.device("cuda"), batch_bytes) == 8


def test_graphs_are_recorded_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    network, modes = torch.nn.Linear(2, 2), []
    monkeypatch.setattr(torch, "compile", lambda function, **named: function)
    monkeypatch.setattr(network, "compile", lambda mode=None: modes.append(mode))
    assert compile_network(network, CPU)
    assert compile_network(network, CPU, graphs=True)
    assert modes == [None, "reduce-overhead"]


def test_a_machine_without_a_compiler_trains_without_it(
    monkeypatch: pytest.MonkeyPatch, notices: pytest.LogCaptureFixture
) -> None:
    def broken(function: object, **named: object) -> None:
        raise RuntimeError("no C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    network = torch.nn.Linear(2, 2)
    assert not compile_network(network, torch.device("cpu"))
    assert notices.messages == [
        "torch.compile does not work here (no C++ compiler found): training goes on without it, slower."
    ]
    assert network(torch.ones(1, 2)).shape == (1, 2)


@pytest.mark.parametrize(("device", "bf16", "expected"), [("cpu", False, "fp32"), ("cuda", False, "fp16")])
def test_auto_takes_what_the_hardware_has(
    device: str, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("undiffuse.utils.device.has_fast_bf16", lambda device: bf16)
    assert resolved(torch.device(device), "auto") == expected
    monkeypatch.setattr("undiffuse.utils.device.has_fast_bf16", lambda device: True)
    assert resolved(torch.device(device), "auto") == "bf16"
    assert resolved(torch.device(device), "fp32") == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "tf32"), ((9, 0), "tf32")])
def test_tf32_is_fp32_where_there_is_none(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: capability)
    assert resolved(CUDA, "tf32") == expected
    assert compute_dtype(CUDA, "tf32") == torch.float32
    assert resolved(CPU, "tf32") == resolved(torch.device("mps"), "tf32") == "fp32"


def tf32_of_convolutions_and_products() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_tf32_ends_with_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (8, 0))
    before = tf32_of_convolutions_and_products()
    inside = []
    with contextlib.suppress(ValueError), autocast(CUDA, "tf32"):
        inside.append(tf32_of_convolutions_and_products())
        raise ValueError
    assert inside == [(True, True)]
    assert tf32_of_convolutions_and_products() == before
    with autocast(CPU, "tf32"):
        assert tf32_of_convolutions_and_products() == before


def test_uploads_wait_for_mps_alone() -> None:
    numbers = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert upload(numbers, CPU) is numbers
    with emulated("mps") as accelerator:
        assert upload(numbers, accelerator.device).dtype == torch.float32
        assert upload(torch.tensor([1]), accelerator.device).dtype == torch.int64
        images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
        assert upload(images, accelerator.device).is_contiguous()
    with emulated("cuda") as accelerator:
        there = upload(numbers, accelerator.device)
        assert (there.dtype, len(accelerator.queued), accelerator.waits) == (torch.float64, 1, [])
        assert there.tolist() == [1.0, 2.0]


def test_what_is_read_later_from_cuda_is_waited_for_by_an_event() -> None:
    assert read_later(torch.tensor([1.0, 2.0]))() == [1.0, 2.0]
    with emulated("cuda") as accelerator:
        values = torch.full((2,), 3.0, device=accelerator.device)
        read = read_later(values)
        assert accelerator.waits == []
        values.zero_()  # Later work: on the stream it comes after the copy.
        assert read() == [3.0, 3.0]
        (wait,) = accelerator.waits
        assert "event" in wait
