"""`undiffuse doctor --check`: right numbers pass, and each kind of wrong one is found."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.accelerator import emulated

import undiffuse
from undiffuse.api import self_check
from undiffuse.api.self_check import Check, SelfCheck, check_machine
from undiffuse.cli import main
from undiffuse.sampling.model import Model
from undiffuse.utils.errors import Skipped

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    return undiffuse.load("digits", device=CPU), self_check._in_float64(undiffuse.load("digits", device=CPU))


def disturbed(model: Model, by: float) -> Model:
    """The model on a device that computes a little wrong."""
    predict = lambda x, sigma, label: model.predict(x, sigma, label)._replace(  # noqa: E731
        x0=model.predict(x, sigma, label).x0 * (1 + by)
    )
    return replace(model, predict=predict)


def test_float32_agrees_with_float64_and_errors_are_found(models: tuple[Model, Model]) -> None:
    model, exact = models
    for precision in ("fp32", "bf16", "fp16"):
        assert self_check._network(model, exact, precision)[0]  # ty: ignore[not-subscriptable]
    # What TF32 does to numbers must not pass for fp32.
    assert not self_check._network(disturbed(model, 2**-11), exact, "fp32")[0]  # ty: ignore[not-subscriptable]
    assert not self_check._network(disturbed(model, 0.05), exact, "bf16")[0]  # ty: ignore[not-subscriptable]


def test_the_gradient_agrees_and_a_wrong_one_is_found(models: tuple[Model, Model]) -> None:
    model, exact = models
    assert self_check._gradient(model, exact)[0]  # ty: ignore[not-subscriptable]
    wrong = undiffuse.load("digits", device=CPU)
    assert wrong.network
    next(wrong.network.parameters()).data *= 1.01
    assert not self_check._gradient(wrong, exact)[0]  # ty: ignore[not-subscriptable]


@pytest.mark.parametrize("sampler", ["heun", "ancestral"])
def test_samplers_agree_and_a_wrong_one_is_found(models: tuple[Model, Model], sampler: str) -> None:
    model, exact = models
    assert self_check._sampler(model, exact, sampler)[0]  # ty: ignore[not-subscriptable]
    assert not self_check._sampler(disturbed(model, 0.05), exact, sampler)[0]  # ty: ignore[not-subscriptable]


def test_mps_is_compared_without_float64_there(models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "IMAGES", 1)
    with emulated("mps") as accelerator:
        model, exact = undiffuse.load("digits", device=accelerator.device), models[1]
        for found in (
            self_check._network(model, exact, "fp32"),
            self_check._gradient(model, exact),
            self_check._sampler(model, exact, "ipndm"),
        ):
            assert found[0], found  # ty: ignore[not-subscriptable]


def test_what_raises_is_wrong_and_what_cannot_be_checked_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[bool, str]:
        raise RuntimeError("no kernel image is available\nand more")

    def checks(device: torch.device) -> list[tuple[str, Callable]]:
        return [("good", lambda: (True, "fine")), ("bad", broken), ("none", lambda: Skipped("one device only"))]

    monkeypatch.setattr(self_check, "_checks", checks)
    report = check_machine(CPU)
    assert [(check.name, check.ok, check.found) for check in report.checks] == [
        ("good", True, "fine"),
        ("bad", False, "RuntimeError: no kernel image is available"),
        ("none", None, "one device only"),
    ]
    assert not report.ok


@pytest.mark.parametrize("ok", [True, False])
def test_the_command_shows_a_table_writes_json_and_exits(
    ok: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    report = SelfCheck("cpu", (Check("network, fp32", ok, "largest error 1e-6", 0.5), Check("two", None, "one", 0.0)))
    monkeypatch.setattr(self_check, "check_machine", lambda: report)
    if ok:
        main(["doctor", "--check", "--out", "check.json"])
    else:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--check", "--out", "check.json"])
        assert ended.value.code == 1
    output = capsys.readouterr().out
    assert ("WRONG" in output) != ok
    assert "two                      skipped  one (0 s)" in output
    assert json.loads(Path("check.json").read_text())["ok"] == ok


def test_resuming_is_checked_in_runs_of_its_own() -> None:
    assert self_check._resume(CPU) == (True, "the same bits as without a stop")
    assert not Path("runs").exists()


@pytest.mark.slow
def test_this_machine_passes() -> None:
    report = check_machine()
    assert [check for check in report.checks if check.ok is False] == []
    assert len(report.checks) > 15
