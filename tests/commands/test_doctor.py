"""`undiffuse doctor`: what this machine has, and what is missing."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
import torch

from undiffuse.api import doctor
from undiffuse.cli import main
from undiffuse.utils.errors import Skipped


def test_it_reports_versions_speed_disk_and_extras(capsys: pytest.CaptureFixture) -> None:
    main(["doctor"])
    output = capsys.readouterr().out
    assert f"torch        {importlib.metadata.version('torch')}" in output
    assert "device      cpu" in output
    assert "GFLOP/s in a convolution, forward and backward" in output
    assert "bf16        " in output
    assert f"free for runs in {Path('runs').absolute()}" in output
    assert f"free for images in {Path('cache').absolute()}" in output


def test_missing_extras_come_with_their_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("diffusers", "timm") else find(name))
    assert "diffusers" in doctor.inspect_machine().extras["hub"]
    main(["doctor"])
    output = capsys.readouterr().out
    assert "hub         missing: pip install 'undiffuse[hub]'" in output
    assert "offline     missing: pip install 'undiffuse[offline]'" in output


def test_a_device_without_bf16_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def without_bf16(device: torch.device, dtype: torch.dtype) -> float:
        if dtype == torch.bfloat16:
            raise RuntimeError("bf16 is not implemented\nfurther lines")
        return 1e9

    monkeypatch.setattr(doctor, "_convolution_flops", without_bf16)
    machine = doctor.inspect_machine()
    assert machine.bf16_flops == Skipped("unavailable on this device (bf16 is not implemented)")
    main(["doctor"])
    output = capsys.readouterr().out
    assert "fp32        1 GFLOP/s" in output
    assert "bf16        unavailable on this device (bf16 is not implemented)" in output
