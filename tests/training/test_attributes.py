"""Training with a table: exact resume, what is told when, runs that start from others, and evaluation."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import undiffuse
from undiffuse.config import Config, Origin, from_dict, to_json
from undiffuse.data.batches import ImageStream, partly_told
from undiffuse.data.columns import AttributesConfig, CategoryColumn, Column, NumberColumn
from undiffuse.data.image_condition import ImageConditionConfig
from undiffuse.data.store import Store
from undiffuse.data.table import read_table
from undiffuse.runs.run import Run, open_run
from undiffuse.runs.told import read_told
from undiffuse.sampling.attributes import of_training_images
from undiffuse.sampling.loading import load_model
from undiffuse.training import loop, session
from undiffuse.training.held_out import HeldOut
from undiffuse.training.observers import Event
from undiffuse.training.session import begin_or_resume, train_run
from undiffuse.training.signals import StopRequest
from undiffuse.training.start import Start, log_start, weights_for
from undiffuse.training.state import new_state
from undiffuse.utils.conditions import Conditions, as_conditions
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.world import World

ALONE = World(0, 1, torch.device("cpu"))
ORIGIN = Origin(run="run", images=600, digest="")


def with_table(store: Store, path: Path) -> Store:
    """The digits with how much ink each has, and in words; every tenth image has no row."""
    ink = store.read(range(len(store))).mean((1, 2, 3))
    rows = [f"{i},{value:.2f},{'heavy' if value > 80 else 'light'}" for i, value in enumerate(ink) if i % 10]
    path.write_text("\n".join(["image,ink,weight", *rows]))
    return replace(store, table=read_table(path, store.names))


@pytest.fixture(scope="module")
def told(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return with_table(store, tmp_path_factory.mktemp("table") / "ink.csv")


@pytest.fixture(scope="module")
def config(tiny: Config, told: Store) -> Config:
    assert told.table
    return replace(tiny, attributes=told.table.config, training=replace(tiny.training, total_images=600))


def trained(folder: Path, config: Config, store: Store) -> Run:
    with StopRequest() as stop:
        train_run(begin_or_resume(folder, config, len(store), ALONE), store, ALONE, stop)
    return open_run(folder)


@pytest.fixture(scope="module")
def run(config: Config, told: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained once for all tests here, which leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("undiffuse.training.previews.PREVIEWS", 1)
        return trained(tmp_path_factory.mktemp("runs") / "run", config, told)


def test_it_resumes_exactly_and_refuses_another_table(
    run: Run, config: Config, told: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments, **named) -> Iterator:
        for i, report in enumerate(loop.training_steps(*arguments, **named)):
            if i == 2:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(session, "training_steps", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(Path("halves"), config, told)
    halves = trained(Path("halves"), config, told)
    assert halves.checkpoints()[0].digest("network") == run.checkpoints()[0].digest("network")
    weights = run.checkpoints()[0].tensors("network")
    assert weights["embed_numbers.last.weight"].any()
    assert weights["embed_categories.table.weight"].any(dim=1).all()
    assert len(list((run.folder / "previews").glob("*-ema.png"))) == 1
    assert from_dict(json.loads(to_json(config))) == config
    assert config.attributes
    other = replace(config, attributes=replace(config.attributes, content="other"))
    with pytest.raises(ValueError, match=r"--condition is not the table that .* was trained with"):
        begin_or_resume(run.folder, other, len(told), ALONE)


def test_resuming_says_which_condition_is_missing_and_takes_a_moved_table(
    run: Run, config: Config, told: Store
) -> None:
    table = run.config.condition
    assert table
    assert Path(table).name == "ink.csv"
    assert Path(table).is_absolute()
    with pytest.raises(ValueError, match=rf"was trained with --condition {table}: give that again to resume it"):
        begin_or_resume(run.folder, replace(config, attributes=None), len(told), ALONE)
    low_res = ImageConditionConfig(low_res=4, channels=1)
    with pytest.raises(ValueError, match=r"was trained with --condition .*ink\.csv: give that again"):
        begin_or_resume(run.folder, replace(config, attributes=None, image_condition=low_res), len(told), ALONE)
    assert config.attributes
    moved = replace(config, attributes=replace(config.attributes, table="/elsewhere/ink.csv"))
    halves = trained(Path("moved"), replace(config, training=replace(config.training, total_images=100)), told)
    moved = replace(halves.config, attributes=moved.attributes)
    assert begin_or_resume(halves.folder, moved, len(told), ALONE).config.condition == "/elsewhere/ink.csv"
    plain = trained(Path("plain"), replace(halves.config, attributes=None), replace(told, table=None))
    with pytest.raises(ValueError, match="was trained without --condition: leave it out"):
        begin_or_resume(plain.folder, config, len(told), ALONE)
    older = json.loads(to_json(moved))
    del older["attributes"]["table"]
    assert from_dict(older).condition is None


def test_a_run_that_died_before_its_first_checkpoint_leaves_no_values_behind(config: Config, told: Store) -> None:
    short = replace(config, training=replace(config.training, total_images=100))

    def failing(event: Event) -> None:
        raise RuntimeError

    with StopRequest() as stop, pytest.raises(RuntimeError):
        train_run(begin_or_resume(Path("run"), short, len(told), ALONE), told, ALONE, stop, observers=[failing])
    assert told.table
    table = replace(told.table, numbers=-told.table.numbers, config=replace(told.table.config, content="other"))
    again = trained(Path("run"), replace(short, attributes=table.config), replace(told, table=table))
    numbers = read_told(again).numbers
    assert numbers is not None
    np.testing.assert_array_equal(numbers.numpy(), table.numbers)


def test_what_is_stated_moves_the_prediction(run: Run) -> None:
    model = load_model(run, ALONE.device)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nothing = model.denoise(x, 1.0, "none")
    assert torch.equal(model.denoise(x, 1.0, "none", {"ink": None}), nothing)
    few, many = model.denoise(x, 1.0, "none", {"ink": 30}), model.denoise(x, 1.0, "none", ["ink=110", "weight=heavy"])
    assert (few - nothing).abs().max() > 0
    assert (many - few).abs().max() > 0
    each = model.denoise(x, 1.0, "none", {"ink": [30, 90]})
    torch.testing.assert_close(each[0], few[0])


def test_a_seed_has_its_values_whatever_the_batch(run: Run) -> None:
    model = load_model(run, ALONE.device)
    options: dict[str, Any] = {"label": "none", "steps": 2, "attributes": ("ink=30,110", "weight=light")}
    together = np.asarray(model.sample(4, **options))
    assert (np.asarray(model.sample(4, batch=3, **options)) == together).all()
    assert (np.asarray(model.sample(1, seed=3, **options)) == together[3:]).all()
    listed: dict[str, Any] = options | {"attributes": {"ink": [110, 30], "weight": "light"}}
    assert (np.asarray(model.sample(2, seed=1, **listed)) == together[1:3]).all()
    gallery = undiffuse.sample(run, count=4, out="samples", **options)
    assert (gallery.pixels(range(4)).permute(0, 2, 3, 1).numpy() == together).all()
    assert '"ink": [\n' in (gallery.folder / "samples.json").read_text()
    other: dict[str, Any] = options | {"attributes": ("ink=30",)}
    with pytest.raises(ValueError, match="holds samples made with attributes"):
        undiffuse.sample(run, count=4, out="samples", **other)


def test_values_and_labels_are_missing_together_and_alone(told: Store, config: Config) -> None:
    images = 4000
    whole = as_conditions(told.condition(np.arange(images) % 9 + 1))  # All of them have values.
    partly = partly_told(whole, 0.5, ImageRandomness("columns", 0, range(images)))
    assert partly.numbers is not None
    assert partly.categories is not None
    assert partly.label is not None
    missing = torch.stack([partly.label < 0, partly.numbers[:, 0].isnan(), partly.categories[:, 0] < 0], dim=1)
    # Half are whole; in the others each of 0 to 3 values is missing equally often.
    share = torch.bincount(missing.sum(dim=1), minlength=4) / images
    torch.testing.assert_close(share, torch.tensor([5 / 8, 1 / 8, 1 / 8, 1 / 8]), atol=0.03, rtol=0)
    stream = ImageStream(told, config.augmentation, 0.1, 0)
    batch = stream.__getitems__(list(range(500)))
    assert (batch.numbers.isnan() & (batch.label < 0)[:, None]).float().mean() == pytest.approx(0.12, abs=0.04)
    without = ImageStream(told, config.augmentation, 0.0, 0).__getitems__(list(range(500)))
    assert (without.label >= 0).all()
    assert without.numbers.isnan().float().mean() == pytest.approx(0.1, abs=0.03)
    # The table changes nothing else about an image.
    plain = ImageStream(replace(told, table=None), config.augmentation, 0.1, 0).__getitems__(list(range(500)))
    assert torch.equal(plain.eps, batch.eps)
    assert torch.equal(plain.x0, batch.x0)


def test_held_out_images_are_measured_with_their_own_values(told: Store, config: Config, randomized: Callable) -> None:
    network, heard = randomized(new_state(config, ALONE.device).network), []

    def listening(x: Tensor, c_noise: Tensor, label: Conditions) -> Tensor:
        heard.append(label)
        return network(x, c_noise, label)

    held_out = HeldOut(told, 0.0)
    run = Run(Path("run"), config)
    held_out.begin(run, new_state(config, ALONE.device))
    held_out.losses(listening, np.array([3, 14]))
    expected = as_conditions(told.condition([3, 14]))
    for name in ("label", "numbers", "categories"):
        assert torch.equal(getattr(heard[0], name), getattr(expected, name)), name


def test_evaluation_samples_like_the_training_images(run: Run, told: Store) -> None:
    training = read_told(run)
    assert training.numbers is not None
    assert len(training.numbers) == len(told)
    some = of_training_images(run.config, run, range(2000))
    again = of_training_images(run.config, run, [1999, 3])
    assert some.label is not None
    assert again.label is not None
    assert some.label[[1999, 3]].tolist() == again.label.tolist()
    assert some.numbers is not None
    # As in the training images: a tenth is missing, and the others have mean 0 and deviation 1.
    assert some.numbers.isnan().float().mean() == pytest.approx(0.1, abs=0.02)
    assert float(some.numbers.nanmean()) == pytest.approx(0, abs=0.06)
    evaluation = undiffuse.evaluate(run, count=20, steps=1, features="pixels", real_count=20)
    assert evaluation.made_by["attributes"] == "those of training images, chosen at random"
    samples = next((run.folder / "evaluation" / "samples").iterdir())
    assert '"conditions": "those of training images"' in (samples / "samples.json").read_text()
    assert run.config.attributes
    other = replace(run.config, attributes=replace(run.config.attributes, content="other"))
    with pytest.raises(ValueError, match=r"told\.safetensors is of another table"):
        read_told(Run(run.folder, other))
    with pytest.raises(ValueError, match=r"told\.safetensors cannot be read"):
        read_told(Run(Path("elsewhere"), run.config))


def test_a_run_with_a_table_starts_from_one_without_and_the_other_way_round(
    run: Run, config: Config, told: Store
) -> None:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def predicts(config: Config, weights: dict[str, Tensor], condition: Conditions | Tensor) -> Tensor:
        network = config.build_network().eval()
        network.load_state_dict(weights)
        with torch.no_grad():
            return network(x, torch.ones(2), condition)

    checkpoint = run.last_good()
    assert checkpoint
    start, label = Start(run, checkpoint), torch.tensor([3, -1])
    before = predicts(config, checkpoint.tensors("ema"), label)
    plain = replace(config, attributes=None)
    without = weights_for(plain, start)
    assert torch.equal(predicts(plain, without, label), before)
    # A table of its own: the words in another order and a new one, the number on another scale.
    Path("other.csv").write_text("image,weight,ink,new\n1,heavy,300,5\n2,light,400,6\n3,none at all,200,5\n")
    assert config.attributes
    other = read_table(Path("other.csv"), told.names, known=config.attributes)
    changed = replace(config, attributes=other.config)
    fitted = weights_for(changed, start)
    values = Conditions(label, numbers=torch.tensor([[0.5], [-1.0]]), categories=torch.tensor([[0], [1]]))
    nan = torch.full((2, 1), torch.nan)
    new = values._replace(numbers=torch.cat([torch.tensor([[0.5], [-1.0]]), nan], dim=1))
    assert other.config.categories[0].values == ("heavy", "light", "none at all")
    torch.testing.assert_close(
        predicts(changed, fitted, new), predicts(config, checkpoint.tensors("ema"), values), rtol=1e-5, atol=1e-6
    )


def test_what_becomes_of_the_columns_is_told(run: Run, config: Config, notices: pytest.LogCaptureFixture) -> None:
    checkpoint = run.last_good()
    assert checkpoint
    assert config.attributes
    start, (ink, weight) = Start(run, checkpoint), config.attributes.columns
    assert isinstance(weight, CategoryColumn)

    def told(*columns: Column) -> list[str]:
        notices.clear()
        attributes = AttributesConfig(columns, "") if columns else None
        log_start(start, replace(config, origin=ORIGIN, attributes=attributes))
        return notices.messages

    assert told(ink, weight)[1:] == ["         its columns"]
    assert told()[1:] == ["         without its table: give --condition to go on with one"]
    changed = CategoryColumn("weight", ("feather", "heavy"))
    assert told(changed, NumberColumn("age", 0, 1, 0, 9))[1:] == [
        "         1 column kept, new (age), dropped (ink), words of weight: 1 new, 1 dropped"
    ]
    assert told(CategoryColumn("ink", ("a", "b")))[1:] == ["         0 columns kept, new (ink), dropped (ink, weight)"]
    notices.clear()
    low_res, pairs = ImageConditionConfig(low_res=2, channels=1), ImageConditionConfig(pairs="/sketches", channels=1)
    other = Start(Run(run.folder, replace(config, attributes=None, image_condition=low_res)), checkpoint)
    log_start(other, replace(config, origin=ORIGIN, attributes=None, image_condition=pairs))
    assert "another kind of other images, to be learned anew: /sketches, there low-res:2" in notices.text


def test_attributes_need_a_table_and_diffusers_has_none(run: Run) -> None:
    with pytest.raises(ValueError, match="was trained with a table of attributes and cannot be exported"):
        undiffuse.export(run, target="exported")
    with pytest.raises(ValueError, match="this model was trained without a table"):
        undiffuse.load("digits").sample(1, attributes={"ink": 3})
    edited = undiffuse.edit(run, "vary", image=np.zeros((8, 8, 1), np.uint8), attributes=["ink=40"], count=1, steps=2)
    assert '"ink"' in (edited.gallery.folder / "samples.json").read_text()
    with pytest.raises(ValueError, match="an edit takes one"):
        undiffuse.edit(run, "vary", image=np.zeros((8, 8, 1), np.uint8), attributes=["ink=40,50"])
