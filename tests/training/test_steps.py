"""One training step is the one that was configured: the weighted loss's gradient, clipped; the EMA; dropout's seed."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from undiffuse.config import Config
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import Batch, ImageStream, batches
from undiffuse.data.store import Store
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.runs.run import open_run
from undiffuse.training import loop
from undiffuse.training.checkpoints import CheckpointOptions, restore
from undiffuse.training.loop import training_steps
from undiffuse.training.observers import Event
from undiffuse.training.state import StepReport, TrainingState, new_state
from undiffuse.utils.world import World

ALONE = World(0, 1, torch.device("cpu"))
SIZE = 10


@pytest.fixture
def config(tiny: Config) -> Config:
    training = replace(tiny.training, batch=SIZE, microbatch=SIZE)
    return replace(tiny, training=training, optimizer=replace(tiny.optimizer, warmup_images=0))


def stream(store: Store, first_image: int = 0) -> Iterator[Batch]:
    images = ImageStream(store, AugmentationConfig(), label_dropout=0.1, seed=0, held_out=0, batch=SIZE)
    return batches(images, first_image, SIZE, 0, 1, workers=0, pin_memory=False)


def taken(state: TrainingState, config: Config, store: Store, steps: int) -> list[StepReport]:
    """The reports of so many steps, which leave the state after them."""
    return list(islice(training_steps(state, config, stream(store, state.images), lambda: 0.0, ALONE), steps))


def gradients_in(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The gradients as they are before clipping, filled at each step."""
    seen: list[list[Tensor]] = []

    def clip(weights: list[Tensor], most: float) -> Tensor:
        seen.append([w.grad.clone() for w in weights if w.grad is not None])
        return usual(weights, most)

    usual = loop.clip_grad_norm_
    monkeypatch.setattr(loop, "clip_grad_norm_", clip)
    return seen


@pytest.mark.parametrize("microbatch", [SIZE, 3])
def test_the_gradient_is_that_of_the_weighted_mean_loss(
    microbatch: int, config: Config, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An importance sampler's weights correct its choice of noise levels only if the gradient has them too."""
    config = replace(config, training=replace(config.training, microbatch=microbatch))
    config = replace(config, network=replace(config.network, dropout=0.0))
    state, weight = new_state(config, ALONE.device), torch.linspace(0.0, 3.0, SIZE, dtype=torch.float64)
    sample = state.sigma_sampler.sample
    sigma = sample(torch.linspace(0.05, 0.95, SIZE, dtype=torch.float64))[0]
    monkeypatch.setattr(state.sigma_sampler, "sample", lambda u: (sigma, weight))
    batch = next(stream(store))
    losses = config.diffusion.make_loss()(state.network, x0=batch.x0, eps=batch.eps, sigma=sigma, label=batch.condition)
    expected = (weight.to(losses) * losses).mean()
    gradient = torch.autograd.grad(expected, list(state.network.parameters()))
    seen = gradients_in(monkeypatch)
    (report,) = taken(state, config, store, 1)
    assert report.loss == pytest.approx(expected.item(), rel=1e-5)
    norm = torch.cat([each.flatten() for each in gradient]).norm()
    assert report.gradient_norm == pytest.approx(norm.item(), rel=1e-4)
    for found, true in zip(seen[0], gradient, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-6 * norm.item())


@pytest.mark.parametrize("most", [1e-3, 0.0])
def test_the_optimizer_gets_the_clipped_gradient(
    most: float, config: Config, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, optimizer=replace(config.optimizer, max_gradient_norm=most))
    state, norms = new_state(config, ALONE.device), []
    weights = list(state.network.parameters())

    def step(not_finite: Tensor, optimizer: object) -> None:
        norms.append(math.sqrt(sum(float(w.grad.square().sum()) for w in weights if w.grad is not None)))

    monkeypatch.setattr(loop, "step_unless", step)
    (report,) = taken(state, config, store, 1)
    assert report.gradient_norm > 0.01  # As it was before.
    assert norms[0] == pytest.approx(most or report.gradient_norm, rel=1e-3)


def test_the_reported_norm_in_fp16_is_without_the_scale_of_the_loss(config: Config, store: Store) -> None:
    fp16 = replace(config, training=replace(config.training, precision="fp16"))
    norms = [taken(new_state(each, ALONE.device), each, store, 1)[0].gradient_norm for each in (config, fp16)]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped(
    config: Config, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision overflows in the backward pass first."""
    state = new_state(config, ALONE.device)
    before = [weight.clone() for weight in state.network.parameters()]

    class Overflows(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, *losses: Tensor) -> Tensor:
            return losses[0].clone()

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            return gradients[0] * math.inf

    usual = DiffusionConfig().make_loss()
    monkeypatch.setattr(
        DiffusionConfig,
        "make_loss",
        lambda config, stage: lambda *inputs, **named: Overflows.apply(usual(*inputs, **named)),
    )
    (report,) = taken(state, config, store, 1)
    assert math.isfinite(report.loss)
    assert report.skipped
    assert bool(report.not_finite)
    state.settle()
    assert (state.skipped, state.skipped_in_a_row, state.images) == (1, 1, SIZE)
    assert all(map(torch.equal, before, state.network.parameters()))
    assert all(map(torch.equal, before, state.ema.parameters()))


def test_the_ema_moves_by_the_configured_half_life_after_the_batch_is_counted(config: Config, store: Store) -> None:
    config = replace(config, training=replace(config.training, ema_halflife_images=15))
    state = new_state(config, ALONE.device)
    state.images = 100  # The ramp, a twentieth of the images seen, is below the half-life here, and above it below.
    for halflife in (0.05 * 110, 15):
        before = [weight.clone() for weight in state.ema.parameters()]
        taken(state, config, store, 1)
        kept = 0.5 ** (SIZE / halflife)
        for was, now, weight in zip(before, state.ema.parameters(), state.network.parameters(), strict=True):
            torch.testing.assert_close(now, kept * was + (1 - kept) * weight, rtol=1e-4, atol=1e-7)
        state.images = 1000


@dataclass(frozen=True)
class Twins(World):
    """Of two processes that see the same images, one: means over both are its own."""

    synced: list[bool] = field(default_factory=list)
    """Of each backward pass, whether it would average gradients."""

    def wrap(self, network: nn.Module) -> nn.Module:
        return network

    def sync_gradients(self, network: nn.Module, on: bool) -> AbstractContextManager:
        self.synced.append(on)
        return nullcontext()

    def mean_tensor(self, value: Tensor) -> Tensor:
        return value

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor


def test_rehearsing_a_backward_pass_with_other_processes_changes_nothing(config: Config, store: Store) -> None:
    config = replace(config, training=replace(config.training, microbatch=4))
    alone, twin, world = new_state(config, ALONE.device), new_state(config, ALONE.device), Twins(0, 2, ALONE.device)
    taken(alone, config, store, 2)
    reports = list(islice(training_steps(twin, config, stream(store), lambda: 0.0, world), 2))
    assert all(map(torch.equal, alone.network.parameters(), twin.network.parameters()))
    assert [report.skipped for report in reports] == [False, False]
    step = [False, False, True]  # Of three microbatches, the last one averages gradients.
    assert world.synced == [True, *step, *step]


def test_dropout_is_seeded_by_the_images_seen(config: Config, store: Store) -> None:
    """The same batch at another image count drops other units; at the same one the same, whatever came before."""
    batch = next(stream(store))

    def loss_after(images: int) -> float:
        state = new_state(config, ALONE.device)
        for weight in state.network.parameters():  # What starts at zero would hide dropout.
            nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
        state.images = images
        torch.rand(images + 1)
        return next(training_steps(state, config, iter([batch]), lambda: 0.0, ALONE)).loss

    first = loss_after(0)
    assert loss_after(0) == first
    assert loss_after(SIZE) != first


def test_a_checkpoint_holds_the_ema_the_weights_and_all_counts(tiny: Config, run_training: Callable[..., bool]) -> None:
    """What is read back is what training had, part by part: the EMA is not the weights."""
    had: dict[str, dict[str, Tensor]] = {}

    def look(event: Event) -> None:
        if event.ends:
            had["network"], had["ema"] = (
                {name: tensor.clone() for name, tensor in module.state_dict().items()}
                for module in (event.network, event.ema)
            )

    config = replace(tiny, training=replace(tiny.training, total_images=400))
    run_training(Path("run"), config, CheckpointOptions(keep=1), [look])
    checkpoint = open_run(Path("run")).checkpoints()[0]
    for part, tensors in had.items():
        saved = checkpoint.tensors(part)
        assert saved.keys() == tensors.keys()
        assert all(torch.equal(saved[name], tensor) for name, tensor in tensors.items())
    assert not all(torch.equal(had["ema"][name], tensor) for name, tensor in had["network"].items())


def test_counts_are_restored(tiny: Config, run_training: Callable[..., bool]) -> None:
    config = replace(tiny, training=replace(tiny.training, total_images=200))
    run_training(Path("run"), config)
    checkpoint = open_run(Path("run")).checkpoints()[0]
    checkpoint.state.update(seconds=12.5, skipped=5, skipped_in_a_row=3)
    state = new_state(config, ALONE.device)
    assert restore(state, checkpoint, ALONE)
    assert (state.images, state.seconds, state.skipped, state.skipped_in_a_row) == (200, 12.5, 5, 3)
