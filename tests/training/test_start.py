"""A run that starts from another: the same model before the first step, and exact resume without the source."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import undiffuse
from undiffuse.config import Config
from undiffuse.data.store import DataConfig, Store
from undiffuse.networks.unet import UNetConfig
from undiffuse.presets import ImageFacts
from undiffuse.runs.run import Run, open_run
from undiffuse.sampling.model import load_model
from undiffuse.training import loop
from undiffuse.training.session import begin_or_resume
from undiffuse.training.start import Start, weights_for
from undiffuse.utils.world import World

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def source(tiny: Config, run_training: Callable[..., bool]) -> Run:
    run_training(Path("source"), replace(tiny, training=replace(tiny.training, total_images=400)))
    return open_run(Path("source"))


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


def test_it_resumes_to_the_same_bits_when_the_source_is_gone(
    source: Run, store: Store, run_training: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
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
