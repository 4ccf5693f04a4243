"""A run that starts from another: the same model before the first step, and exact resume without the source."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import undiffuse
from undiffuse.config import Config
from undiffuse.data.store import Store
from undiffuse.networks.classes import ClassChange
from undiffuse.networks.unet import UNetConfig
from undiffuse.presets import ImageFacts
from undiffuse.runs.run import Run, open_run
from undiffuse.sampling.loading import load_model
from undiffuse.training import loop
from undiffuse.training.session import begin_or_resume
from undiffuse.training.start import FINE_TUNING_RATE, Start, weights_for
from undiffuse.utils.world import World

ALONE = World(0, 1, torch.device("cpu"))


def trained_with(class_names: tuple[str, ...], tiny: Config, run_training: Callable[..., bool]) -> Run:
    """A run with these classes, as if its images were others than the digits."""
    changed = replace(
        tiny,
        class_names=class_names,
        network=replace(tiny.network, classes=len(class_names)),
        training=replace(tiny.training, total_images=400),
    )
    run_training(Path("source"), changed)
    return open_run(Path("source"))


@pytest.fixture
def source(tiny: Config, run_training: Callable[..., bool]) -> Run:
    return trained_with(tiny.class_names, tiny, run_training)


def start_from(source: Run) -> Start:
    checkpoint = source.last_good()
    assert checkpoint
    return Start(source, checkpoint)


def config_from(source: Run, store: Store | ImageFacts, conditional: bool = True) -> Config:
    return start_from(source).configure(store, source.config.data, 1, conditional)


def begin(folder: str, source: Run, store: Store) -> Run:
    return begin_or_resume(Path(folder), config_from(source, store), len(store), ALONE, start_from(source))


def test_before_the_first_step_it_is_the_source_s_model(source: Run, store: Store) -> None:
    run = begin("run", source, store)
    assert run.config.origin
    assert run.config.origin.images == 400
    for weights in ("ema", "network"):
        ours, theirs = (load_model(each, weights=w).sample(3, steps=4) for each, w in ((run, weights), (source, "ema")))
        assert (ours == theirs).all()


def test_images_add_up_over_a_chain_of_runs(source: Run, store: Store, run_training: Callable[..., bool]) -> None:
    second = begin("second", source, store)
    run_training(Path("second"), second.config)
    third = config_from(open_run(Path("second")), store)
    assert third.origin
    assert third.origin.images == 800


@pytest.mark.parametrize("class_names", [tuple("0123456789"), tuple("98765432xy"), ()])
def test_it_resumes_to_the_same_bits_when_the_source_is_gone(
    class_names: tuple[str, ...],
    tiny: Config,
    store: Store,
    run_training: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the source's classes, some of them and others, or first ones."""
    source = trained_with(class_names, tiny, run_training)
    for folder in ("whole", "halves"):
        begin(folder, source, store)
    config = open_run(Path("whole")).config
    shutil.rmtree("source")
    run_training(Path("whole"), config)

    def stop_after_two(*arguments, **named):
        for i, report in enumerate(loop.training_steps(*arguments, **named)):
            if i == 2:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patch:
        patch.setattr("undiffuse.training.session.training_steps", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            run_training(Path("halves"), config)
    assert [checkpoint.images for checkpoint in open_run(Path("halves")).checkpoints()] == [0]
    run_training(Path("halves"), config)
    whole, halves = (open_run(Path(name)).last_good() for name in ("whole", "halves"))
    assert whole
    assert halves
    assert whole.images == 400
    for part in ("network", "ema", "optimizer"):
        assert whole.digest(part) == halves.digest(part)


def test_attention_stays_at_its_levels_at_another_size() -> None:
    network = UNetConfig(size=(32, 48), attention_resolutions=(24, 12), multipliers=(1, 2, 2))
    larger = network.resized((64, 96))
    assert isinstance(larger, UNetConfig)
    assert larger.attention_resolutions == (48, 24)
    ours, theirs = (config.build().state_dict() for config in (network, larger))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    with pytest.raises(ValueError, match="multiples of 4"):
        network.resized((30, 30))


def test_the_classes_and_the_size_may_change_at_once(source: Run, store: Store) -> None:
    """Kept classes predict the same bits at either size, in both directions."""
    for size in ((16, 16), (4, 4)):
        images = ImageFacts(size, 1, ("9", "new", "0"), "others")
        config, start = config_from(source, images), start_from(source)
        fitted = config.build_network()
        fitted.load_state_dict(weights_for(config, start))
        resized = source.config.network.resized(size).build()
        resized.load_state_dict(start.checkpoint.tensors("ema"))
        x = torch.randn(4, 1, *size, generator=torch.Generator().manual_seed(0))
        before, after = torch.tensor([9, -1, 0, -1]), torch.tensor([0, 1, 2, -1])
        with torch.no_grad():
            assert torch.equal(fitted.eval()(x, torch.ones(4), after), resized.eval()(x, torch.ones(4), before))
        change = config.class_change
        assert str(change) == "2 classes kept, 1 new, 8 dropped"


def test_the_network_may_be_told_of_augmentation_from_now_on(source: Run, store: Store) -> None:
    config = config_from(source, store)
    told = replace(config, augmentation=replace(config.augmentation, nonleaky=0.1))
    weights = weights_for(told, start_from(source))
    told.build_network().load_state_dict(weights)
    assert not weights["embed_augmentation.weight"].any()
    assert "embed_augmentation.weight" not in config.network.adapted(weights, ClassChange((), ()))


def test_training_on_patches_from_now_on_begins_with_the_same_predictions(source: Run, store: Store) -> None:
    config = config_from(source, store)
    on_patches = replace(config, augmentation=replace(config.augmentation, patches=0.5))
    weights = weights_for(on_patches, start_from(source))
    network, before = on_patches.build_network().eval(), config.build_network().eval()
    network.load_state_dict(weights)
    before.load_state_dict(weights_for(config, start_from(source)))
    x, label = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 9, -1])
    with torch.no_grad():
        assert torch.equal(network(x, torch.ones(4), label), before(x, torch.ones(4), label))
    with pytest.raises(ValueError, match=r"trained on patches .* leave augmentation\.patches above 0"):
        config.network.adapted(weights, ClassChange((), ()))


def test_the_learning_rate_is_lower_once_on_other_images(source: Run, store: Store) -> None:
    rate = source.config.optimizer.learning_rate
    again = config_from(source, store)
    assert again.optimizer == source.config.optimizer

    def others(run: Run, content: str) -> Config:
        return config_from(run, ImageFacts((8, 8), 1, ("a",), content))

    tuned = others(source, "others")
    assert tuned.optimizer.learning_rate == pytest.approx(FINE_TUNING_RATE * rate)
    tuned_run = Run(source.folder, tuned)
    assert config_from(tuned_run, ImageFacts((8, 8), 1, ("a",), "others")).optimizer == tuned.optimizer
    assert others(tuned_run, "yet others").optimizer.learning_rate == tuned.optimizer.learning_rate


def test_a_warmup_longer_than_fine_tuning_is_shortened(source: Run) -> None:
    slow = replace(source.config, optimizer=replace(source.config.optimizer, warmup_images=10_000_000))
    images = ImageFacts((8, 8), 1, (), "others")
    assert config_from(Run(source.folder, slow), images).optimizer.warmup_images == 2000


def test_first_classes_are_dropped_as_often_as_usual(source: Run) -> None:
    """A model that never had classes was trained without labels, whatever its setting says."""
    unlabeled = replace(source.config.training, label_dropout=0.0)
    bare = replace(source.config, class_names=(), training=unlabeled)
    images = ImageFacts((8, 8), 1, ("a", "b"), "others")
    assert config_from(Run(source.folder, bare), images).training.label_dropout == 0.1
    labeled = replace(source.config, training=unlabeled)
    assert config_from(Run(source.folder, labeled), images).training.label_dropout == 0.0


def test_the_ema_leaves_the_source_behind(source: Run, store: Store, run_training: Callable[..., bool]) -> None:
    """Its half-life counts this run's images: with 500 images of it, 400 images would keep 57% of the source's EMA."""
    run = begin("run", source, store)
    started = start_from(source).checkpoint.tensors("ema")
    run_training(Path("run"), run.config)
    checkpoint = run.last_good()
    assert checkpoint
    assert checkpoint.images == 400
    network, ema = checkpoint.tensors("network"), checkpoint.tensors("ema")
    moved, lag = (sum(float((network[n] - other[n]).square().sum()) for n in network) for other in (started, ema))
    assert lag < 0.1 * moved


def test_the_same_command_resumes_without_the_source(source: Run, notices: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"from_run": "source", "out": "run", "unconditional": True}
    first = undiffuse.train("digits", images=200, **options)
    assert "from     source, 400 images: 0 classes kept, 10 dropped" in notices.messages
    assert "started from source (400 images: 0 classes kept, 10 dropped)" in repr(first)
    shutil.rmtree("source")
    again = undiffuse.train("digits", images=400, **options)
    assert [checkpoint.images for checkpoint in again.checkpoints()] == [400, 200, 0]
    others: list[dict[str, Any]] = [{"out": "elsewhere"}, {"from_run": "sauce"}]
    for other in others:
        with pytest.raises(FileNotFoundError, match="no run at"):
            undiffuse.train("digits", images=400, **(options | other))
    with pytest.raises(ValueError, match="other settings"):
        undiffuse.train("digits", images=400, from_run="source", out="run")


def test_it_resumes_when_the_source_has_trained_on(source: Run, store: Store) -> None:
    run = begin("run", source, store)
    checkpoint = source.last_good()
    assert checkpoint
    parts = {part: checkpoint.tensors(part) for part in ("network", "ema")}
    parts["ema"] = {name: tensor + 1 for name, tensor in parts["ema"].items()}
    source.save(800, parts, {}, keep=1)
    again = begin("run", source, store)
    assert again.config.origin == run.config.origin
    assert [checkpoint.images for checkpoint in again.checkpoints()] == [0]


def test_other_images_are_announced_with_their_learning_rate(notices: pytest.LogCaptureFixture) -> None:
    images = [(np.full((16, 16), 16 * i, np.uint8), label) for i, label in enumerate((7, 8, 9, 10))]
    options: dict[str, Any] = {"from_run": "digits", "images": 128, "set": ("training.microbatch=128",)}
    run = undiffuse.train(images, dry_run=True, **options)
    assert run.config.class_names == ("7", "8", "9", "10")
    assert "from     digits, 200,064 images: 3 classes kept, 1 new, 7 dropped" in notices.messages
    assert any("other images: learning rate 0.00133, there 0.004" in message for message in notices.messages)
    options["set"] += ("optimizer.learning_rate=0.002",)
    assert undiffuse.train(images, dry_run=True, **options).config.optimizer.learning_rate == 0.002


def test_images_that_do_not_fit_are_refused(source: Run) -> None:
    with pytest.raises(ValueError, match="trained on gray images: give --channels 1"):
        config_from(source, ImageFacts((8, 8), 3))
    with pytest.raises(ValueError, match="multiples of 2"):
        config_from(source, ImageFacts((9, 9), 1))


def test_weights_of_another_shape_are_refused_and_the_first_is_named(source: Run, tiny: Config) -> None:
    wider = replace(tiny, network=replace(tiny.network, channels=16))
    start = start_from(source)
    with pytest.raises(ValueError, match=r"embed\.0\.weight is 32x8 there and 64x16 here"):
        weights_for(wider, start)
    with pytest.raises(ValueError, match="do not fit"):
        begin_or_resume(Path("run"), wider, 1797, ALONE, start)
    assert not Path("run").exists()


def test_a_shipped_model_goes_on_at_another_size_and_resumes() -> None:
    options: dict[str, Any] = {"from_run": "digits", "size": 32, "images": 128, "set": ("training.microbatch=128",)}
    run = undiffuse.train("digits", **options)
    assert run.folder == Path("runs/digits-32x32-from-digits")
    assert run.config.network.size == (32, 32)
    assert "started from digits" in repr(run)
    assert undiffuse.train("digits", **options).checkpoints() == run.checkpoints()


def test_the_source_decides_the_settings() -> None:
    with pytest.raises(ValueError, match="leave out --preset"):
        undiffuse.train("digits", from_run="digits", preset="small")
    with pytest.raises(FileNotFoundError, match="no run at"):
        undiffuse.train("digits", from_run="nowhere")


def test_a_dry_run_finds_weights_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        undiffuse.train("digits", from_run="digits", set=("network.channels=64",), dry_run=True)
    assert not Path("runs").exists()
