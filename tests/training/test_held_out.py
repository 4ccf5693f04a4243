"""Held-out images are never trained on, their loss is in the log, and measuring it disturbs nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from undiffuse.config import Config
from undiffuse.data.batches import ImageStream, split_held_out
from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import Store
from undiffuse.runs.run import Run, open_run
from undiffuse.training import held_out
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.held_out import LEVELS, HeldOut, Plan
from undiffuse.training.observers import Event
from undiffuse.training.session import begin_or_resume
from undiffuse.training.state import StepReport, new_state
from undiffuse.utils.world import World

Train = Callable[..., bool]


@pytest.fixture
def tiny(tiny: Config) -> Config:
    """The same with images held out."""
    return replace(tiny, training=replace(tiny.training, held_out_images=89))


@pytest.fixture
def short(tiny: Config) -> Config:
    """Half as long."""
    return replace(tiny, training=replace(tiny.training, total_images=1000))


@pytest.fixture
def affordable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a budget this small pay for held-out losses."""
    monkeypatch.setattr(held_out, "COST_FRACTION", 0.5)


def measured(run: Run) -> list[dict]:
    return [line for line in run.log_lines() if "held_out_loss" in line]


def held_out_observer(config: Config, store: Store) -> HeldOut:
    observer = HeldOut(store, 0.0)
    run = begin_or_resume(Path("run"), config, len(store), World.alone())
    observer.begin(run, new_state(config, torch.device("cpu")))
    return observer


@pytest.mark.usefixtures("affordable")
def test_the_log_has_the_loss_at_every_noise_level(tiny: Config, run_training: Train, notices) -> None:
    assert run_training(Path("run"), tiny)
    run = open_run(Path("run"))
    lines = measured(run)
    assert [line["images"] for line in lines] == [300, 500, 800, 1000, 1300, 1500, 1800, 2000]
    for line in lines:
        assert len(line["sigmas"]) == len(line["held_out_losses"]) == len(line["training_losses"]) == LEVELS
        assert line["held_out_loss"] == pytest.approx(np.mean(line["held_out_losses"]))
    assert lines[-1]["held_out_loss"] < 0.95 * lines[0]["held_out_loss"]
    assert "held_out_change" in lines[-1]
    assert any("Loss on images held out from training" in message for message in notices.messages)
    with Image.open(run.folder / "curves.png") as picture:
        assert picture.width > 300


@pytest.mark.usefixtures("affordable")
def test_curves_are_drawn_at_the_first_measurement_and_at_the_end(
    short: Config, run_training: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between them, only as often as a small fraction of the time allows: never in a run of a second."""
    drawn: list[int] = []

    def png(*arguments: object) -> bytes:
        drawn.append(len(measured(open_run(Path("run")))))
        return b"drawn"

    monkeypatch.setattr("undiffuse.training.log.style.png", png)
    monkeypatch.setattr("undiffuse.training.log.DRAWING_FRACTION", 1e-9)
    run_training(Path("run"), short)
    assert drawn == [1, 8]


@pytest.mark.usefixtures("affordable")
def test_measuring_does_not_change_what_is_trained(short: Config, run_training: Train, monkeypatch) -> None:
    run_training(Path("measured"), short)
    monkeypatch.setattr(held_out, "COST_FRACTION", 0.0)
    run_training(Path("not"), short)
    with_it, without = (open_run(Path(name)) for name in ("measured", "not"))
    assert measured(with_it)
    assert not measured(without)
    assert all(
        with_it.checkpoints()[0].digest(part) == without.checkpoints()[0].digest(part) for part in ("network", "ema")
    )


@pytest.mark.usefixtures("affordable")
def test_a_run_that_was_stopped_logs_the_same(short: Config, run_training: Train) -> None:
    """Whatever was measured before the last checkpoint counts after it, and nothing counts twice."""
    run_training(Path("whole"), short)

    def fail_at_800(event: Event) -> None:
        if event.images == 800:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run_training(Path("halves"), short, CheckpointOptions(checkpoint_images=300), [fail_at_800])
    run_training(Path("halves"), short, CheckpointOptions(checkpoint_images=300))
    whole, halves = (measured(open_run(Path(name))) for name in ("whole", "halves"))
    keys = [key for key in whole[-1] if key != "seconds"]
    assert [{key: line.get(key) for key in keys} for line in whole] == [
        {key: line.get(key) for key in keys} for line in halves
    ]


@pytest.mark.usefixtures("affordable")
def test_a_run_goes_on_with_its_images_where_the_budget_suffices_for_others(
    short: Config, run_training: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget in minutes suffices for more or fewer on another machine, or with another load on it."""

    def fail_at_800(event: Event) -> None:
        if event.images == 800:
            raise RuntimeError("killed")

    monkeypatch.setattr(held_out, "IMAGES", (4, 6))
    with pytest.raises(RuntimeError):
        run_training(Path("run"), short, CheckpointOptions(checkpoint_images=300), [fail_at_800])
    monkeypatch.setattr(held_out, "IMAGES", (4, 10))
    assert run_training(Path("run"), short, CheckpointOptions(checkpoint_images=300))
    last = measured(open_run(Path("run")))[-1]
    assert last["images"] == 1000
    assert "held_out_change" in last


@pytest.mark.usefixtures("affordable")
def test_the_loss_is_the_objective_at_the_middles_of_what_training_samples(tiny: Config, store: Store) -> None:
    observer = held_out_observer(tiny, store)
    # Of the middles of eight equally likely parts as many lie below the median as above it.
    assert (observer.sigmas.log() < tiny.diffusion.sigma_mean).tolist() == [True] * 4 + [False] * 4
    ideal = tiny.diffusion.make_parametrization()
    indices = observer.both[0][:5]
    x0 = to_nchw(store.read(indices)).double() / 127.5 - 1

    def knows_them(x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        """The output that denoises these images perfectly."""
        assert label.tolist() == store.labels[indices].tolist()
        sigma = (4 * c_noise[0].double()).exp()
        c_skip, c_out, c_in, _ = ideal(sigma[None])
        return ((x0 - c_skip * x / c_in) / c_out).to(x)

    assert observer.losses(knows_them, indices).max() < 1e-6
    nothing = observer.losses(lambda x, c_noise, label: torch.zeros_like(x), indices)
    # EDM's target has unit variance for data of standard deviation sigma_data.
    assert 0.5 < nothing.mean() < 2


@pytest.mark.usefixtures("affordable")
def test_the_mean_loss_of_each_image_is_kept(tiny: Config, store: Store) -> None:
    """What has changed since is found image by image: see `runs.finding.change`."""
    observer, state = held_out_observer(tiny, store), new_state(tiny, torch.device("cpu"))
    observer.step(Event(1000, Mock(spec=StepReport), 0.5, 1.0, ends=False, fails=False, state=state))
    assert observer.plan is not None
    images = observer.plan.images
    expected = [observer.losses(state.ema, indices[:images]).mean(dim=1).tolist() for indices in observer.both]
    assert images != LEVELS
    assert [len(losses) for losses in expected] == [images, images]
    assert observer.checkpoint_state()["first"] == expected


@pytest.mark.parametrize("held", [0, 7, 300])
def test_held_out_images_are_the_rest(held: int) -> None:
    training, rest = split_held_out(1000, held)
    assert len(rest) == held
    assert sorted([*training, *rest]) == list(range(1000))


@pytest.mark.parametrize(
    ("images", "held"), [(480, 0), (999, 0), (1000, 50), (8189, 409), (50_000, 1000), (1_000_000, 1000)]
)
def test_a_twentieth_is_held_out_where_there_are_enough(images: int, held: int) -> None:
    assert len(split_held_out(images, None)[1]) == held


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(ValueError, match="held_out_images=10 leaves none of 10 images"):
        split_held_out(10, 10)


def test_the_stream_never_shows_a_held_out_image(tiny: Config, store: Store, run_training: Train) -> None:
    training, rest = split_held_out(len(store), 300)
    stream = ImageStream(store, tiny.augmentation, 0.0, 0, 300)
    seen = stream.__getitems__(list(range(2 * (len(store) - 300)))).x0
    shown = {image.tobytes() for image in ((seen + 1) * 127.5).round().to(torch.uint8).numpy()}
    hidden = {image.tobytes() for image in to_nchw(store.read(rest)).contiguous().numpy()}
    trained = {image.tobytes() for image in to_nchw(store.read(training)).contiguous().numpy()}
    assert shown == trained
    assert len(hidden - trained) > 250
    assert not shown & (hidden - trained)


@pytest.mark.parametrize(
    ("evaluations", "held", "plan"),
    [
        (1000, 500, None),
        (16 * 8 * 8, 500, Plan(8, 8)),
        (10_000, 500, Plan(78, 8)),
        (1e6, 500, Plan(500, 20)),
        (1e6, 9, Plan(9, 20)),
        (1e6, 0, None),
    ],
)
def test_what_is_measured_fits_the_budget(evaluations: float, held: int, plan: Plan | None) -> None:
    assert Plan.within(evaluations, held) == plan
    if plan is not None:
        assert plan.images * plan.measurements * 2 * LEVELS <= evaluations


def test_a_budget_in_minutes_is_measured_too(tiny: Config, store: Store) -> None:
    training = replace(tiny.training, total_images=None, total_minutes=6000.0)
    observer = held_out_observer(replace(tiny, training=training), store)
    assert observer.plan is not None
    assert observer.plan.images == 89


@pytest.mark.usefixtures("affordable")
def test_nothing_is_concluded_from_the_loss_of_a_student(tiny: Config, run_training: Train, notices) -> None:
    assert run_training(Path("run"), replace(tiny, diffusion=replace(tiny.diffusion, objective="consistency")))
    lines = measured(open_run(Path("run")))
    assert lines
    assert not any("held_out_change" in line for line in lines)
    assert "Loss on images held out" not in notices.text
