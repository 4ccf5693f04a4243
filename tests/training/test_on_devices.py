"""Training on emulated GPUs: every loss and optimizer runs, and a step reads only the report of the one before."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.accelerator import Accelerator, emulated

from undiffuse.config import Config
from undiffuse.data.batches import Batch, ImageStream
from undiffuse.data.store import Store
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.runs.run import create_run, open_run
from undiffuse.training import loop, previews
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.cost import measure_cost
from undiffuse.training.held_out import HeldOut
from undiffuse.training.session import begin_or_resume, train_run
from undiffuse.training.signals import StopRequest
from undiffuse.training.state import StepReport, TrainingState, new_state
from undiffuse.utils.world import World

CPU = torch.device("cpu")
BATCH = 6

DISCRETE = DiffusionConfig(
    parametrization="eps", objective="hybrid", sigma_sampler="discrete_uniform", schedule="cosine", num_timesteps=8
)
RECIPES = {
    "edm": DiffusionConfig(),
    "balanced": DiffusionConfig(sigma_sampler="log_normal_balanced"),
    "flow": DiffusionConfig(parametrization="flow", sigma_sampler="logit_normal"),
    "v, min_snr": DiffusionConfig(parametrization="v", weight="min_snr"),
    "x0, edm weight": DiffusionConfig(parametrization="x0", weight="edm"),
    "hybrid": DISCRETE,
    "vlb": replace(DISCRETE, objective="vlb", sigma_sampler="loss_second_moment"),
}
INPUTS = 5
"""Tensors of a batch that go to the device at most: images, noise, noise levels, labels and weights."""


@pytest.fixture
def smallest(tiny: Config) -> Config:
    network = replace(tiny.network, multipliers=(1,), attention_resolutions=(), dropout=0.0)
    training = replace(tiny.training, batch=BATCH, microbatch=None, precision="fp32", total_images=2 * BATCH)
    return replace(tiny, network=network, training=training)


def steps_of(config: Config, store: Store, device: torch.device) -> tuple[TrainingState, Iterator[StepReport]]:
    stream = ImageStream(store, config.augmentation, 0.1, 0)
    batches: Iterator[Batch] = (stream.__getitems__(list(range(BATCH * i, BATCH * (i + 1)))) for i in range(3))
    state = new_state(config, device)
    return state, loop.training_steps(state, config, batches, lambda: 0.0, World(0, 1, device))


def check_waits(accelerator: Accelerator, config: Config, store: Store) -> list[StepReport]:
    """Takes two steps; in the second there is nothing to wait for but the report of the first."""
    _, steps = steps_of(config, store, accelerator.device)
    reports = [next(steps)]
    assert "_read" not in vars(reports[0]), "a step does not read its own report"
    accelerator.forget()
    reports.append(next(steps))
    assert "_read" in vars(reports[0])
    assert len(accelerator.reads) == 1, accelerator.reads
    assert len(accelerator.uploads) <= (INPUTS if accelerator.device.type == "mps" else 0), accelerator.uploads
    return reports


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_loss_trains_on_mps_like_on_the_cpu(recipe: str, smallest: Config, store: Store) -> None:
    # Muon takes longest, and is the same for all.
    optimizer = replace(smallest.optimizer, muon=recipe == "edm")
    config = replace(smallest, diffusion=RECIPES[recipe], optimizer=optimizer)
    with emulated("mps") as accelerator:
        found = [(each.loss, each.gradient_norm) for each in check_waits(accelerator, config, store)]
    _, steps = steps_of(config, store, CPU)
    expected = [(each.loss, each.gradient_norm) for each in (next(steps), next(steps))]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize(("precision", "muon"), [("fp32", True), ("fp16", False)])
def test_no_step_waits_for_cuda(precision: str, muon: bool, smallest: Config, store: Store) -> None:
    diffusion = replace(DISCRETE, objective="simple", weight="min_snr")
    training = replace(smallest.training, precision=precision, microbatch=BATCH // 2)
    optimizer = replace(smallest.optimizer, muon=muon)
    with emulated("cuda") as accelerator:
        check_waits(accelerator, replace(smallest, diffusion=diffusion, training=training, optimizer=optimizer), store)


def test_held_out_losses_and_costs_are_measured_on_mps(smallest: Config, store: Store, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", replace(smallest, diffusion=DISCRETE))

    def losses(device: torch.device) -> torch.Tensor:
        state = new_state(run.config, device)
        observer = HeldOut(store, 0.0)
        observer.begin(run, state)
        return observer.losses(state.ema, np.arange(3))

    with emulated("mps") as accelerator:
        found = losses(accelerator.device)
        cost = measure_cost(run.config, accelerator.device)
    torch.testing.assert_close(found, losses(CPU), rtol=1e-4, atol=1e-5)
    assert cost.activation_bytes == pytest.approx(measure_cost(run.config, CPU).activation_bytes, rel=0.1)


def test_a_run_on_mps_resumes_exactly(smallest: Config, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "PREVIEWS", 1)
    monkeypatch.setattr(previews, "STEPS", 1)
    monkeypatch.setattr(previews, "IMAGES", 2)

    def train(name: str, images: int, world: World) -> None:
        config = replace(smallest, training=replace(smallest.training, total_images=images))
        run = begin_or_resume(Path(name), config, len(store), world)
        with StopRequest() as stop:
            train_run(run, store, world, stop, CheckpointOptions())

    with emulated("mps") as accelerator:
        train("whole", 2 * BATCH, World(0, 1, accelerator.device))
        train("halves", BATCH, World(0, 1, accelerator.device))
        train("halves", 2 * BATCH, World(0, 1, accelerator.device))
    whole, halves = (open_run(Path(name)).last_good() for name in ("whole", "halves"))
    assert whole
    assert halves
    for part in ("network", "ema", "optimizer"):
        assert whole.digest(part) == halves.digest(part)
