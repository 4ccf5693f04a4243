"""What the one place that chooses devices and precisions chooses."""

import pytest
import torch

from undiffuse.utils.device import compute_dtype, has_fast_bf16, state_dtype

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
