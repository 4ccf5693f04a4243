"""Training in fp16: the loss is scaled so that small gradients survive, and the factor adapts and resumes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from undiffuse.config import Config
from undiffuse.runs.run import open_run
from undiffuse.training import loop
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.state import LossScale, new_state

CPU = torch.device("cpu")


@pytest.fixture
def fp16(tiny: Config) -> Config:
    return replace(tiny, training=replace(tiny.training, precision="fp16"))


def test_the_factor_halves_after_an_overflow_and_doubles_after_many_finite_steps() -> None:
    scale = LossScale(CPU)
    began = float(scale.value)
    scale.update(torch.tensor(True))
    assert float(scale.value) == began / 2
    for _ in range(LossScale.STEPS_TO_DOUBLE):
        scale.update(torch.tensor(False))
    assert float(scale.value) == began


def test_unscaled_gradients_are_those_of_the_loss() -> None:
    scale, weight = LossScale(CPU), torch.ones(3, requires_grad=True)
    (scale.value * (weight * torch.tensor([1.0, 2.0, 3.0])).sum()).backward()
    assert weight.grad is not None
    scale.unscale([weight.grad])
    assert weight.grad.tolist() == [1.0, 2.0, 3.0]


def test_only_fp16_is_scaled(tiny: Config, fp16: Config) -> None:
    assert new_state(tiny, CPU).loss_scale is None
    assert new_state(fp16, CPU).loss_scale is not None


def test_fp16_trains_like_fp32(tiny: Config, fp16: Config, run_training: Callable[..., bool]) -> None:
    run_training(Path("fp32"), tiny)
    run_training(Path("fp16"), fp16)
    exact, rounded = (open_run(Path(name)).log_lines() for name in ("fp32", "fp16"))
    assert rounded[-1]["skipped_batches"] == 0
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02)


def test_an_overflow_is_skipped_and_resumes_exactly(
    fp16: Config, run_training: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScale, "STEPS_TO_DOUBLE", 1)  # So that it grows until gradients overflow, again and again.
    fp16 = replace(fp16, training=replace(fp16.training, batch=40, total_images=1000))
    run_training(Path("whole"), fp16, CheckpointOptions(keep=1))

    def stop(*arguments, **named):
        for i, report in enumerate(loop.training_steps(*arguments, **named)):
            if i == 16:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patch:
        patch.setattr("undiffuse.training.session.training_steps", stop)
        with pytest.raises(KeyboardInterrupt):
            run_training(Path("halves"), fp16, CheckpointOptions(keep=1, checkpoint_images=280))
    run_training(Path("halves"), fp16, CheckpointOptions(keep=1))
    whole, halves = (open_run(Path(name)).last_good() for name in ("whole", "halves"))
    assert whole is not None
    assert halves is not None
    assert whole.state["skipped"] > 1
    assert whole.state["skipped"] == halves.state["skipped"]
    for part in ("network", "ema", "optimizer", "loss_scale"):
        assert whole.digest(part) == halves.digest(part)


def test_a_run_that_began_in_another_precision_goes_on_with_a_scale(
    tiny: Config, run_training: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """precision=auto is bf16 on one machine and fp16 on another."""
    auto = replace(tiny, training=replace(tiny.training, precision="auto", total_images=200))
    run_training(Path("run"), auto)
    monkeypatch.setattr("undiffuse.utils.device.resolved", lambda *options: "fp16")
    run_training(Path("run"), replace(auto, training=replace(auto.training, total_images=300)))
    checkpoint = open_run(Path("run")).last_good()
    assert checkpoint is not None
    assert checkpoint.images == 300
    assert "loss_scale" in checkpoint.parts
