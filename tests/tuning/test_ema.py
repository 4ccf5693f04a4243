"""EMAs of other lengths out of kept checkpoints, against those that every step would give."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from undiffuse.config import Config
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.ema_profile import power_function_profile
from undiffuse.runs.run import Run, create_run
from undiffuse.tuning.ema import MOST_ERROR, as_trained, combination, combined, run_of_length, whole_checkpoints

STEPS, BATCH, HALFLIFE = 4000, 10, 10**9


@pytest.fixture
def run(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Run:
    return create_run(Path("runs/one"), replace(preset_config("small"), network=small_network))


def walk() -> np.ndarray:
    """The weights of every step of a training that wanders: 50 of them, each a random walk."""
    return np.random.default_rng(0).normal(size=(STEPS, 50)).cumsum(axis=0)


def emas(weights: np.ndarray, snapshots: list[int]) -> np.ndarray:
    """The EMA of the weights after so many images each, as training makes it."""
    ema, kept = weights[0] * 0, []
    for step, now in enumerate(weights, 1):
        ema = ema + (now - ema) * (1 - 0.5 ** (BATCH / (0.05 * step * BATCH)))
        if step * BATCH in snapshots:
            kept.append(ema)
    return np.stack(kept)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(np.square(first - second).mean()))


@pytest.mark.parametrize("length", [0.04, 0.1, 0.2])
def test_the_sum_comes_close_to_the_ema_of_that_length(length: float) -> None:
    weights = walk()
    snapshots = [STEPS * i // 24 * BATCH for i in range(1, 25)]
    kept = emas(weights, snapshots)
    images = (np.arange(STEPS) + 0.5) * BATCH
    goal = (power_function_profile(images, STEPS * BATCH, length) * BATCH) @ weights
    made = np.array(combination(snapshots, HALFLIFE, length).coefficients) @ kept
    assert distance(made, goal) < 0.2 * distance(kept[-1], goal)


def test_more_checkpoints_come_closer_and_few_cannot_make_a_long_one() -> None:
    errors = [combination([40_000 * i // n for i in range(1, n + 1)], HALFLIFE, 0.1).error for n in (3, 6, 12, 24, 48)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.04
    assert combination([38_000, 39_000, 40_000], HALFLIFE, 0.1).error > MOST_ERROR, "they know only the end"


@pytest.mark.parametrize("length", [0.02, 0.15])
def test_weights_that_never_moved_stay_as_they_are(length: float, run: Run) -> None:
    snapshots, still = [1000, 2000, 3000, 4000], torch.tensor([0.1, -3e4])
    for images in snapshots:
        run.save(images, {"ema": {"still": still, "count": torch.tensor(images)}}, {}, keep=9)
    fit = combination(snapshots, HALFLIFE, length)
    made = combined(whole_checkpoints(run), fit.coefficients)
    assert sum(fit.coefficients) == pytest.approx(1, abs=1e-12)
    assert torch.equal(made["still"], still)
    assert made["count"] == 4000, "what is not averaged is that of the last"


def test_the_length_as_trained_is_the_last_checkpoint_to_the_bit(run: Run) -> None:
    for images in (100, 200):
        run.save(images, {"ema": {"w": torch.randn(3, generator=torch.Generator().manual_seed(images))}}, {}, keep=9)
    length, alone = as_trained([100, 200], HALFLIFE)
    made = run_of_length(run, whole_checkpoints(run), length, alone, Path("runs/own")).checkpoints()[0]
    assert (length, made.images) == (pytest.approx(0.0629, abs=1e-4), 200)
    assert made.digest("ema") == run.checkpoints()[0].digest("ema")
    assert (made.ema_length, made.ema_of) == (length, run.checkpoints()[0].digest("ema"))


def test_a_run_of_the_same_checkpoints_is_kept_and_of_others_refused(run: Run) -> None:
    for images in (100, 200, 300):
        run.save(images, {"ema": {"w": torch.full((2,), float(images))}}, {}, keep=9)
    fit = combination([100, 200, 300], HALFLIFE, 0.1)
    first = run_of_length(run, whole_checkpoints(run), 0.1, fit, Path("runs/long"))
    written = (first.checkpoints()[0].folder / "checkpoint.json").stat().st_mtime_ns
    again = run_of_length(run, whole_checkpoints(run), 0.1, fit, Path("runs/long"))
    assert (again.checkpoints()[0].folder / "checkpoint.json").stat().st_mtime_ns == written
    run.save(400, {"ema": {"w": torch.zeros(2)}}, {}, keep=9)
    with pytest.raises(ValueError, match=r"runs/long was made from other checkpoints: give another --out"):
        run_of_length(run, whole_checkpoints(run), 0.1, fit, Path("runs/long"))


def test_what_training_began_with_is_no_average_of_it(run: Run) -> None:
    for images in (0, 100, 200):
        run.save(images, {"ema": {"w": torch.ones(1)}}, {}, keep=9)
    assert [checkpoint.images for checkpoint in whole_checkpoints(run)] == [100, 200]


def test_checkpoints_of_another_network_are_named(run: Run) -> None:
    run.save(100, {"ema": {"w": torch.ones(1)}}, {}, keep=9)
    run.save(200, {"ema": {"w": torch.ones(2)}}, {}, keep=9)
    with pytest.raises(ValueError, match="200 is of another network than the checkpoint before: remove it"):
        combined(whole_checkpoints(run), (0.5, 0.5))


def test_a_damaged_checkpoint_is_left_out(run: Run, notices: pytest.LogCaptureFixture) -> None:
    for images in (100, 200, 300):
        run.save(images, {"ema": {"w": torch.ones(1)}}, {}, keep=9)
    (run.folder / "checkpoints/200/ema.safetensors").write_bytes(b"nonsense")
    assert [checkpoint.images for checkpoint in whole_checkpoints(run)] == [100, 300]
    assert "200 is left out: ema.safetensors is damaged" in notices.messages[-1]
