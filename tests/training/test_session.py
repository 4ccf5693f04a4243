"""A run in its folder: it resumes exactly, refuses what would spoil it, and never saves what is broken."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from undiffuse.config import Config, TrainingConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.store import Store
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.sigma_samplers import LossSecondMomentResampler
from undiffuse.runs.run import NonFiniteError, Run, open_run
from undiffuse.training import loop, session
from undiffuse.training.session import CheckpointOptions, begin_or_resume, new_state
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.world import World

Train = Callable[..., bool]

ALONE = World(0, 1, torch.device("cpu"))


def with_budget(config: Config, images: int) -> Config:
    return replace(config, training=replace(config.training, total_images=images))


def losses(run: Run) -> list[tuple[int, float]]:
    return [(line["images"], line["loss"]) for line in run.log_lines()]


def newest_bytes(run: Run) -> dict[str, bytes]:
    """The weights, average and optimizer of the newest checkpoint, to the bit."""
    folder = run.checkpoints()[0].folder
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def test_training_lowers_the_loss_and_leaves_what_the_contract_names(
    tiny: Config, run_training: Train, monkeypatch
) -> None:
    monkeypatch.setattr(session, "PREVIEWS", 2)
    assert run_training(Path("run"), tiny, CheckpointOptions(checkpoint_images=500, keep=2))
    run = open_run(Path("run"))
    logged = losses(run)
    assert [images for images, _ in logged] == list(range(200, 2001, 200))
    assert logged[-1][1] < 0.95 * logged[0][1]
    assert [checkpoint.images for checkpoint in run.checkpoints()] == [2000, 1500]
    assert run.config == tiny
    previews = sorted(path.name for path in (run.folder / "previews").iterdir())
    images = ("000000001000", "000000002000")
    assert previews == [f"{seen}-{weights}.png" for seen in images for weights in ("average", "network")]
    assert list((run.folder / "tensorboard").iterdir())


LEARNING_WHERE_TO_LOOK = DiffusionConfig(
    parametrization="eps", objective="hybrid", draw="loss_aware", schedule="cosine", num_timesteps=8
)
"""So few levels that all are known after some hundred images."""


@pytest.mark.parametrize("diffusion", [DiffusionConfig(), LEARNING_WHERE_TO_LOOK], ids=["log_normal", "loss_aware"])
def test_a_run_in_two_halves_equals_one_in_a_piece_to_the_bit(
    diffusion: DiffusionConfig, tiny: Config, run_training: Train, monkeypatch
) -> None:
    tiny = replace(tiny, diffusion=diffusion)
    run_training(Path("whole"), tiny)

    steps = 0

    def stop_after_seven(*arguments, **named):
        nonlocal steps
        for report in loop.train(*arguments, **named):
            steps += 1
            if steps == 7:  # Within a line of the log, and where no checkpoint is due.
                os.kill(os.getpid(), signal.SIGTERM)
            yield report

    monkeypatch.setattr(session, "train", stop_after_seven)
    assert not run_training(Path("halves"), tiny)
    assert open_run(Path("halves")).checkpoints()[0].images == 700
    assert run_training(Path("halves"), tiny)
    whole, halves = open_run(Path("whole")), open_run(Path("halves"))
    assert newest_bytes(whole) == newest_bytes(halves)
    assert losses(whole) == losses(halves)
    learned = whole.checkpoints()[0].folder / "draws.safetensors"
    assert learned.exists() == (diffusion is LEARNING_WHERE_TO_LOOK)


def test_levels_are_drawn_where_losses_are_large_once_all_are_known(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), replace(tiny, diffusion=LEARNING_WHERE_TO_LOOK))
    draws = LEARNING_WHERE_TO_LOOK.draws()
    draws.load(open_run(Path("run")).checkpoints()[0].tensors("draws"))
    assert isinstance(draws, LossSecondMomentResampler)
    assert (draws.seen == 10).all()
    assert (draws.losses > 0).all()
    assert draws.probabilities().max() > 2 / 8


def test_losses_are_noted_before_their_weights_and_in_order(tiny: Config, store: Store) -> None:
    # The network answers 0 and cannot learn: each loss is the mean square of its image's noise.
    diffusion = replace(LEARNING_WHERE_TO_LOOK, objective="simple")
    config = replace(tiny, diffusion=diffusion, training=replace(tiny.training, microbatch=30))
    state = new_state(config, ALONE.device)
    for parameter in state.network.parameters():
        torch.nn.init.zeros_(parameter)
    batch = ImageStream(store, config.augmentation, 0.0, 0).__getitems__(list(range(100)))
    draws, expected = LossSecondMomentResampler(diffusion.chain()), LossSecondMomentResampler(diffusion.chain())
    for each in (draws, expected):
        each.update(torch.arange(8).repeat_interleave(10), torch.arange(1, 81).double())
    state.draws = draws
    report = next(loop.train(state, config, iter([batch]), lambda: 0.0, ALONE, torch.float32))

    sigma, weight = expected.draw(batch.u)
    squares = batch.eps.square().mean(dim=(1, 2, 3))
    expected.observe(sigma, squares, lambda tensor: tensor)
    torch.testing.assert_close(draws.losses, expected.losses, rtol=1e-6, atol=0)
    assert report.loss == pytest.approx(float((weight * squares).mean()), rel=1e-5)


@pytest.mark.parametrize("diffusion", [DiffusionConfig(), LEARNING_WHERE_TO_LOOK], ids=["log_normal", "loss_aware"])
def test_accumulated_microbatches_train_like_one_batch(
    diffusion: DiffusionConfig, tiny: Config, run_training: Train
) -> None:
    tiny = replace(with_budget(tiny, 600), network=replace(tiny.network, dropout=0.0), diffusion=diffusion)
    run_training(Path("one"), tiny)
    run_training(Path("parts"), replace(tiny, training=replace(tiny.training, microbatch=30)))
    for (_, one), (_, parts) in zip(losses(open_run(Path("one"))), losses(open_run(Path("parts"))), strict=True):
        assert parts == pytest.approx(one, abs=1e-4)


def test_two_commands_cannot_train_one_run_at_once(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 200))
    with FileLock("run/.training.lock"), pytest.raises(ValueError, match="trained by another process"):
        run_training(Path("run"), tiny)
    assert run_training(Path("run"), tiny)


def test_bf16_trains_with_weights_in_fp32(tiny: Config, run_training: Train) -> None:
    tiny = replace(tiny, training=replace(tiny.training, precision="bf16", total_images=300))
    run_training(Path("run"), tiny)
    run = open_run(Path("run"))
    tensors = {**run.checkpoints()[0].tensors("network"), **run.checkpoints()[0].tensors("average")}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert losses(run)[0][1] == pytest.approx(1.12, abs=0.1)  # As in fp32, but for rounding.


def test_a_larger_budget_goes_on_and_a_spent_one_says_so(tiny: Config, run_training: Train) -> None:
    said: list[str] = []
    assert run_training(Path("run"), with_budget(tiny, 400))
    assert run_training(Path("run"), with_budget(tiny, 400))
    assert any("budget" in sentence for sentence in said)
    assert run_training(Path("run"), with_budget(tiny, 600))
    assert open_run(Path("run")).checkpoints()[0].images == 600


def test_other_settings_are_refused_by_name_and_change_nothing(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 200))
    before = Path("run/config.json").read_bytes()
    with pytest.raises(ValueError, match=r"seed 0 -> 1.*another --out"):
        run_training(Path("run"), replace(with_budget(tiny, 200), seed=1))
    assert Path("run/config.json").read_bytes() == before


def test_a_run_without_a_checkpoint_may_begin_anew_with_other_settings(tiny: Config, run_training: Train) -> None:
    begin_or_resume(Path("run"), tiny)
    lower = replace(with_budget(tiny, 200), optimizer=replace(tiny.optimizer, learning_rate=1e-4))
    assert run_training(Path("run"), lower)
    assert open_run(Path("run")).config == lower


def test_images_that_changed_are_named_and_the_run_is_left_alone(tiny: Config, run_training: Train) -> None:
    run_training(Path("run"), with_budget(tiny, 200))
    with pytest.raises(ValueError, match=r"images at digits are no longer those that .*run was trained on"):
        begin_or_resume(Path("run"), replace(tiny, data_content="other"))


def test_a_damaged_newer_checkpoint_never_crowds_out_a_good_one(tiny: Config, run_training: Train, monkeypatch) -> None:
    run_training(Path("run"), with_budget(tiny, 900), CheckpointOptions(checkpoint_images=300, keep=3))
    run = open_run(Path("run"))
    for newest in run.checkpoints()[:2]:
        (newest.folder / "checkpoint.json").write_text("{")
    nan_in_batches(monkeypatch, set(range(4, 100)))  # Goes on from 300 and comes to 600, but not to 900.
    with pytest.raises(WorkFailed):
        run_training(Path("run"), with_budget(tiny, 2000), CheckpointOptions(checkpoint_images=200, keep=1))
    (kept,) = run.checkpoints()
    assert kept.fault() is None
    assert kept.images == 1600


def test_memory_that_runs_out_names_the_microbatch(tiny: Config, run_training: Train, monkeypatch) -> None:
    def too_much(*arguments, **named):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(DiffusionConfig, "loss", lambda config: too_much)
    with pytest.raises(WorkFailed, match=r"training.microbatch=64"):
        run_training(Path("run"), tiny)


def test_a_folder_with_other_files_is_not_taken_for_a_run(tiny: Config, run_training: Train) -> None:
    Path("photos").mkdir()
    Path("photos/a.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no run"):
        run_training(Path("photos"), tiny)
    assert [path.name for path in Path("photos").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("damage", ["cut", "gone", "index", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tiny: Config, run_training: Train, damage: str
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
    said: list[str] = []
    assert run_training(Path("run"), with_budget(tiny, 1000))
    assert any(str(newest) in sentence and "not whole" in sentence for sentence in said)
    assert any("last good checkpoint" in sentence and "900" in sentence for sentence in said)
    assert newest_bytes(open_run(Path("run"))) == newest_bytes(open_run(Path("untouched")))


def test_a_full_disk_stops_training_and_names_the_last_good_checkpoint(
    tiny: Config, run_training: Train, monkeypatch
) -> None:
    usual = Path.write_bytes

    def full_after_500(path: Path, content: bytes) -> int:
        if "-1000" in str(path):
            usual(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device", str(path))
        return usual(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_after_500)
    with pytest.raises(WorkFailed, match=r"1,000 images: .*No space left.*last good checkpoint is .*500"):
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

    usual = DiffusionConfig().loss()
    monkeypatch.setattr(DiffusionConfig, "loss", lambda config: loss)


def test_a_batch_that_is_not_finite_is_skipped_and_counted(tiny: Config, run_training: Train, monkeypatch) -> None:
    nan_in_batches(monkeypatch, {3, 4})
    run_training(Path("run"), with_budget(tiny, 1000))
    lines = open_run(Path("run")).log_lines()
    assert [line["skipped_batches"] for line in lines] == [0, 1, 2, 2, 2]
    assert all(line["loss"] is not None for line in lines)


def test_ten_batches_in_a_row_that_are_not_finite_stop_training(tiny: Config, run_training: Train, monkeypatch) -> None:
    nan_in_batches(monkeypatch, set(range(8, 100)))
    with pytest.raises(WorkFailed, match=r"1,800 images.*not finite 10 batches.*last good checkpoint is .*\b1200"):
        run_training(Path("run"), with_budget(tiny, 4000), CheckpointOptions(checkpoint_images=600, keep=1))
    for checkpoint in open_run(Path("run")).checkpoints():
        for part in ("network", "average", "optimizer"):
            assert all(torch.isfinite(t).all() for t in checkpoint.tensors(part).values())


def test_nothing_that_is_not_finite_is_ever_saved(tiny: Config) -> None:
    run = Run(Path("run"), tiny)
    with pytest.raises(NonFiniteError, match="network: w"):
        run.save(1, {"network": {"w": torch.tensor([1.0, float("inf")])}}, {}, keep=1)
    assert run.checkpoints() == []


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
    with pytest.raises(ValueError, match="more than 0"):
        TrainingConfig(total_images=0, total_minutes=None)
