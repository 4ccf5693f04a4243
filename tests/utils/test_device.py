"""Which precision is chosen where, and how many workers."""

import os

import pytest
import torch

from undiffuse.utils.device import compute_dtype, has_fast_bf16, loader_workers, state_dtype

CPU = torch.device("cpu")


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
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert loader_workers(torch.device("cuda")) == workers
    assert loader_workers(CPU) == 0
