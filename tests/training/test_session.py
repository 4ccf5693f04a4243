"""A run in its folder: it resumes exactly, refuses what would ruin it, and never saves anything broken."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from undiffuse.config import Config, TrainingConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.columns import AttributesConfig, NumberColumn
from undiffuse.data.image_condition import ImageConditionConfig
from undiffuse.data.store import Store
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.sigma_samplers import LossSecondMomentResampler
from undiffuse.runs.run import Run, create_run, open_run
from undiffuse.training import loop, previews, session
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.session import begin_or_resume
from undiffuse.training.state import new_state
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.world import World

Train = Callable[..., bool]

ALONE = World(0, 1, torch.device("cpu"))


def with_budget(config: Config, images: int) -> Config:
    return replace(config, training=replace(config.training, total_images=images))


def losses(run: Run) -> list[tuple[int, float]]:
    return [(line["images"], line["loss"]) for line in run.log_lines()]


def newest_bytes(run: Run) -> dict[str, bytes]:
    """The weights, EMA and optimizer state of the newest checkpoint, to the bit."""
    folder = run.checkpoints()[0].folder
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def test_training_lowers_the_loss_and_fills_the_run_folder(tiny: Config, run_training: Train, monkeypatch) -> None:
    monkeypatch.setattr(previews, "PREVIEWS", 2)
    assert run_training(Path("run"), tiny, CheckpointOptions(checkpoint_images=500, keep=2))
    run = open_run(Path("run"))
    logged = losses(run)
    assert [images for images, _ in logged] == list(range(200, 2001, 200))
    assert logged[-1][1] < 0.95 * logged[0][1]
    assert [checkpoint.images for checkpoint in run.checkpoints()] == [2000, 1500]
    assert run.config == tiny
    saved = sorted(path.name for path in (run.folder / "previews").iterdir())
    images = ("000000001000", "000000002000")
    assert saved == [f"{seen}-{weights}.png" for seen in images for weights in ("ema", "network")]
    assert list((run.folder / "tensorboard").iterdir())


LEARNED_SAMPLER = DiffusionConfig(
    parametrization="eps", objective="hybrid", sigma_sampler="loss_second_moment", schedule="cosine", num_timesteps=8
)
"""Its noise levels are so few that the sampler knows all of them after a few hundred images."""

IN_STAGES = DiffusionConfig(objective="consistency", sigma_std=2.0)
"""Its loss changes every 250 of 2,000 images, and so between two checkpoints."""


@pytest.mark.parametrize(
    "diffusion",
    [DiffusionConfig(), LEARNED_SAMPLER, IN_STAGES],
    ids=["log_normal", "loss_second_moment", "consistency"],
)
def test_a_run_in_two_halves_equals_an_unbroken_one(
    diffusion: DiffusionConfig, tiny: Config, run_training: Train, monkeypatch
) -> None:
    tiny = replace(tiny, diffusion=diffusion)
    run_training(Path("whole"), tiny)

    steps = 0

    def stop_after_seven(*arguments, **named):
        nonlocal steps
        for report in loop.training_steps(*arguments, **named):
            steps += 1
            if steps == 7:  # Within a line of the log, and where no checkpoint is due.
                os.kill(os.getpid(), signal.SIGTERM)
            yield report

    monkeypatch.setattr(session, "training_steps", stop_after_seven)
    assert not run_training(Path("halves"), tiny)
    assert open_run(Path("halves")).checkpoints()[0].images == 700
    assert run_training(Path("halves"), tiny)
    whole, halves = open_run(Path("whole")), open_run(Path("halves"))
    assert newest_bytes(whole) == newest_bytes(halves)
    assert losses(whole) == losses(halves)
    learned = whole.checkpoints()[0].folder / "sigma_sampler.safetensors"
    assert learned.exists() == (diffusion is LEARNED_SAMPLER)


def test_noise_levels_with_large_losses_come_more_often(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), replace(tiny, diffusion=LEARNED_SAMPLER))
    sampler = LEARNED_SAMPLER.make_sigma_sampler()
    sampler.load(open_run(Path("run")).checkpoints()[0].tensors("sigma_sampler"))
    assert isinstance(sampler, LossSecondMomentResampler)
    assert (sampler.seen == 10).all()
    assert (sampler.losses > 0).all()
    assert sampler.probabilities().max() > 2 / 8


def test_the_sigma_sampler_sees_unweighted_losses_in_order(tiny: Config, store: Store) -> None:
    # The network returns 0 and cannot learn: each loss is the mean square of its image's noise.
    diffusion = replace(LEARNED_SAMPLER, objective="simple")
    config = replace(tiny, diffusion=diffusion, training=replace(tiny.training, microbatch=30))
    state = new_state(config, ALONE.device)
    for parameter in state.network.parameters():
        torch.nn.init.zeros_(parameter)
    batch = ImageStream(store, config.augmentation, 0.0, 0).__getitems__(list(range(100)))
    levels = diffusion.discrete_schedule()
    sampler, expected = LossSecondMomentResampler(levels), LossSecondMomentResampler(levels)
    for each in (sampler, expected):
        each.update(torch.arange(8).repeat_interleave(10), torch.arange(1, 81).double())
    state.sigma_sampler = sampler
    report = next(loop.training_steps(state, config, iter([batch]), lambda: 0.0, ALONE))

    sigma, weight = expected.sample(batch.u)
    squares = batch.eps.square().mean(dim=(1, 2, 3))
    expected.observe(sigma, squares, lambda tensor: tensor)
    torch.testing.assert_close(sampler.losses, expected.losses, rtol=1e-6, atol=0)
    assert report.loss == pytest.approx(float((weight * squares).mean()), rel=1e-5)


def test_training_goes_on_while_a_checkpoint_is_written(tiny: Config, run_training: Train, monkeypatch) -> None:
    usual, went_on = Run.save, threading.Event()
    seen: list[tuple[int, bool]] = []

    def slow(run: Run, images: int, *arguments, **named):
        assert went_on.wait(30)
        return usual(run, images, *arguments, **named)

    def watch(event) -> None:
        seen.append((event.images, (Path("run") / "checkpoints" / "500").exists()))
        if event.images == 700:
            went_on.set()

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", slow)
        assert run_training(Path("run"), with_budget(tiny, 1000), CheckpointOptions(checkpoint_images=500), [watch])
    assert [written for images, written in seen if images <= 700] == [False] * 7
    whole = open_run(Path("run")).checkpoints()
    assert [checkpoint.images for checkpoint in whole] == [1000, 500]
    run_training(Path("alone"), with_budget(tiny, 1000), CheckpointOptions(checkpoint_images=500))
    for ours, theirs in zip(whole, open_run(Path("alone")).checkpoints(), strict=True):
        assert ours.digest("network") == theirs.digest("network"), "a snapshot, not what training has made of it since"


@pytest.mark.parametrize("diffusion", [DiffusionConfig(), LEARNED_SAMPLER], ids=["log_normal", "loss_second_moment"])
def test_accumulated_microbatches_train_like_one_batch(
    diffusion: DiffusionConfig, tiny: Config, run_training: Train
) -> None:
    tiny = replace(with_budget(tiny, 600), network=replace(tiny.network, dropout=0.0), diffusion=diffusion)
    run_training(Path("one"), tiny)
    run_training(Path("many"), replace(tiny, training=replace(tiny.training, microbatch=30)))
    for (_, one), (_, many) in zip(losses(open_run(Path("one"))), losses(open_run(Path("many"))), strict=True):
        assert many == pytest.approx(one, abs=1e-4)


def test_two_commands_cannot_train_one_run_at_once(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 200))
    with FileLock("run/.training.lock"), pytest.raises(ValueError, match="trained by another process"):
        run_training(Path("run"), tiny)
    assert run_training(Path("run"), tiny)


def test_bf16_trains_with_weights_in_fp32(tiny: Config, run_training: Train) -> None:
    tiny = replace(tiny, training=replace(tiny.training, precision="bf16", total_images=300))
    run_training(Path("run"), tiny)
    run = open_run(Path("run"))
    tensors = {**run.checkpoints()[0].tensors("network"), **run.checkpoints()[0].tensors("ema")}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert losses(run)[0][1] == pytest.approx(1.12, abs=0.1)  # As in fp32, but for rounding.


def test_a_larger_budget_trains_on_and_a_spent_one_says_so(
    tiny: Config, run_training: Train, notices: pytest.LogCaptureFixture
) -> None:
    assert run_training(Path("run"), with_budget(tiny, 400))
    assert run_training(Path("run"), with_budget(tiny, 400))
    assert any("budget of this run is spent" in sentence for sentence in notices.messages)
    assert run_training(Path("run"), with_budget(tiny, 600))
    assert open_run(Path("run")).checkpoints()[0].images == 600


def test_other_settings_are_refused_by_name_and_change_nothing(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 200))
    before = Path("run/config.json").read_bytes()
    with pytest.raises(ValueError, match=r"seed 0 -> 1.*another --out"):
        run_training(Path("run"), replace(with_budget(tiny, 200), seed=1))
    assert Path("run/config.json").read_bytes() == before


def test_without_a_checkpoint_settings_may_still_change(tiny: Config, run_training: Train) -> None:
    begin_or_resume(Path("run"), tiny, 1797, ALONE)
    lower = replace(with_budget(tiny, 200), optimizer=replace(tiny.optimizer, learning_rate=1e-4))
    assert run_training(Path("run"), lower)
    assert open_run(Path("run")).config == lower


AGE, SIZE = (NumberColumn(name, 0.0, 1.0, -1.0, 1.0) for name in ("age", "size"))
PAIRS = ImageConditionConfig(pairs="sketches", channels=1, content="1")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"attributes": AttributesConfig((AGE,), "1")}, "was trained without --condition: leave it out"),
        ({"attributes": AttributesConfig((AGE,), "1", "/a.csv")}, {}, "was trained with --condition /a.csv: give that"),
        ({"image_condition": PAIRS}, {}, "was trained with --condition sketches: give that again"),
        ({"image_condition": PAIRS}, {"image_condition": ImageConditionConfig(low_res=2)}, "sketches: give that again"),
        (
            {"image_condition": ImageConditionConfig(low_res=2)},
            {"image_condition": ImageConditionConfig(low_res=4)},
            "was trained with --condition low-res:2: give that again",
        ),
        ({"image_condition": PAIRS}, {"image_condition": replace(PAIRS, content="2")}, "The images in sketches are no"),
        (
            {"attributes": AttributesConfig((AGE,), "1"), "seed": 0},
            {"attributes": AttributesConfig((AGE, SIZE), "2"), "seed": 1},
            "--condition is not the table that .* was trained with: bring that back",
        ),
    ],
)
def test_a_run_is_not_resumed_told_something_else(
    before: dict[str, Any], after: dict[str, Any], message: str, tiny: Config
) -> None:
    begun = create_run(Path("run"), replace(tiny, **before))
    weights = {"weight": torch.zeros(1)}
    begun.save(100, {"network": weights, "ema": weights}, {}, keep=1)
    with pytest.raises(ValueError, match=message):
        begin_or_resume(begun.folder, replace(tiny, **after), 1797, ALONE)


def test_a_run_is_not_resumed_on_other_images(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 200))
    with pytest.raises(ValueError, match=r"images at digits are not the ones that .*run was trained on"):
        begin_or_resume(Path("run"), replace(tiny, data_content="other"), 1797, ALONE)


def test_a_damaged_newer_checkpoint_does_not_count_as_kept(tiny: Config, run_training: Train, monkeypatch) -> None:
    run_training(Path("run"), with_budget(tiny, 900), CheckpointOptions(checkpoint_images=300, keep=3))
    run = open_run(Path("run"))
    for newest in run.checkpoints()[:2]:
        (newest.folder / "checkpoint.json").write_text("{")
    nan_in_batches(monkeypatch, set(range(4, 100)))
    # Resumes at 300; the batches from 800 on are not finite, so that the tenth in a row ends training at 1,700.
    with pytest.raises(WorkFailed):
        run_training(Path("run"), with_budget(tiny, 2000), CheckpointOptions(checkpoint_images=200, keep=1))
    (kept,) = run.checkpoints()
    assert kept.fault() is None
    assert kept.images == 1600


def test_memory_that_runs_out_names_the_microbatch(tiny: Config, run_training: Train, monkeypatch) -> None:
    def too_much(*arguments, **named):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(DiffusionConfig, "make_loss", lambda config, stage: too_much)
    with pytest.raises(WorkFailed, match=r"training.microbatch=64"):
        run_training(Path("run"), tiny)


def test_a_folder_with_other_files_is_not_taken_for_a_run(tiny: Config, run_training: Train) -> None:
    Path("photos").mkdir()
    Path("photos/a.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not a run"):
        run_training(Path("photos"), tiny)
    assert [path.name for path in Path("photos").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("damage", ["cut", "gone", "index", "flipped"])
def test_a_damaged_checkpoint_is_named_and_an_older_one_used(
    tiny: Config, run_training: Train, damage: str, notices: pytest.LogCaptureFixture
) -> None:
    for name in ("run", "untouched"):
        run_training(Path(name), with_budget(tiny, 1000), CheckpointOptions(checkpoint_images=300))
    newest = open_run(Path("run")).checkpoints()[0].folder
    weights = newest / "network.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "gone":
        weights.unlink()
    elif damage == "index":
        (newest / "checkpoint.json").write_text('{"images": 10')
    else:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    assert run_training(Path("run"), with_budget(tiny, 1000))
    assert any(str(newest) in sentence and "not whole" in sentence for sentence in notices.messages)
    assert any("last good checkpoint" in sentence and "900" in sentence for sentence in notices.messages)
    assert newest_bytes(open_run(Path("run"))) == newest_bytes(open_run(Path("untouched")))


def test_a_full_disk_names_the_last_good_checkpoint(tiny: Config, run_training: Train, monkeypatch) -> None:
    usual = Path.write_bytes

    def full_after_500(path: Path, content: bytes) -> int:
        if "-1000" in str(path):
            usual(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device", str(path))
        return usual(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_after_500)
    with pytest.raises(WorkFailed, match=r"1,[01]00 images: .*No space left.*last good checkpoint is .*500"):
        run_training(Path("run"), tiny, CheckpointOptions(checkpoint_images=500))
    run = open_run(Path("run"))
    assert [checkpoint.images for checkpoint in run.checkpoints()] == [500]
    assert run.checkpoints()[0].fault() is None
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["500"]


def nan_in_batches(monkeypatch, wrong: set[int]) -> None:
    calls = -1

    def loss(*arguments, **named):
        nonlocal calls
        calls += 1
        true = usual(*arguments, **named)
        return true * float("nan") if calls in wrong else true

    usual = DiffusionConfig().make_loss()
    monkeypatch.setattr(DiffusionConfig, "make_loss", lambda config, stage: loss)


def test_a_batch_that_is_not_finite_is_skipped_and_counted(tiny: Config, run_training: Train, monkeypatch) -> None:
    nan_in_batches(monkeypatch, {3, 4})
    run_training(Path("run"), with_budget(tiny, 1000))
    lines = open_run(Path("run")).log_lines()
    assert [line["skipped_batches"] for line in lines] == [0, 1, 2, 2, 2]
    assert all(line["loss"] is not None for line in lines)


def test_ten_skipped_batches_in_a_row_stop_training(tiny: Config, run_training: Train, monkeypatch) -> None:
    nan_in_batches(monkeypatch, set(range(8, 100)))
    with pytest.raises(WorkFailed, match=r"1,800 images.*not finite 10 batches.*last good checkpoint is .*\b1200"):
        run_training(Path("run"), with_budget(tiny, 4000), CheckpointOptions(checkpoint_images=600, keep=1))
    for checkpoint in open_run(Path("run")).checkpoints():
        for part in ("network", "ema", "optimizer"):
            assert all(torch.isfinite(t).all() for t in checkpoint.tensors(part).values())


def test_a_checkpoint_that_would_run_code_is_read_as_data_only(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 200))
    folder = open_run(Path("run")).checkpoints()[0].folder
    bomb = b"cos\nsystem\n(S'touch executed'\ntR."
    (folder / "network.safetensors").write_bytes(bomb)
    assert "damaged" in (open_run(Path("run")).checkpoints()[0].fault() or "")
    assert not Path("executed").exists()


def test_a_torn_last_line_of_the_log_is_dropped_on_resume(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 400))
    with open("run/log.jsonl", "a") as log:
        log.write(json.dumps({"images": 600, "loss": 1.0}) + '\n{"images": 8')
    run_training(Path("run"), with_budget(tiny, 800))
    assert [images for images, _ in losses(open_run(Path("run")))] == [200, 400, 600, 800]


def test_a_budget_in_minutes_ends_on_time(tiny: Config, run_training: Train) -> None:
    minutes = replace(tiny.training, total_images=None, total_minutes=0.05)
    assert run_training(Path("run"), replace(tiny, training=minutes))
    checkpoint = open_run(Path("run")).checkpoints()[0]
    assert 3.0 <= checkpoint.state["seconds"] < 4.5
    assert checkpoint.images > 200


def test_a_budget_must_be_one_thing() -> None:
    with pytest.raises(ValueError, match="--images or --minutes"):
        TrainingConfig(total_images=100, total_minutes=1.0)
    with pytest.raises(ValueError, match="total_images"):
        TrainingConfig(total_images=0, total_minutes=None)
