"""Samples of a run are made once, and their time is known only where they were made in one go."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.features import context

from undiffuse.config import Config, SamplingConfig
from undiffuse.evaluation.samples import RunSamples, run_samples
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.runs.run import create_run
from undiffuse.runs.timing import timing_of
from undiffuse.sampling.loading import load_model


@pytest.fixture
def samples(
    preset_config: Callable[[str], Config], small_network: UNetConfig, random_unet: Callable[[UNetConfig], UNet]
) -> RunSamples:
    """Of a run, in two steps of heun."""
    run = create_run(Path("runs/one"), replace(preset_config("small"), network=small_network))
    ema = random_unet(small_network).state_dict()
    run.save(500, {"network": ema, "ema": ema}, {}, keep=1)
    model = load_model(run, torch.device("cpu"))
    return run_samples(model, SamplingConfig(sampler="heun", steps=2), 6, context())


def test_the_time_of_samples_is_known_if_they_were_made_in_one_go(samples: RunSamples) -> None:
    first = samples.make(range(4), context()).timing
    assert first is not None
    assert (first.first_seed, first.last_seed, first.batch, first.processes) == (0, 3, 100, 1)
    assert first.seconds_per_image > 0
    assert samples.make(range(6), context()).timing is None, "two of them were made later"
    assert samples.make(range(4), context()).timing == first
    assert timing_of(samples.gallery.folder, range(4, 6)) is None


def test_what_made_them_is_recorded_with_what_it_cost(samples: RunSamples) -> None:
    made = samples.make(range(2, 5), context())
    assert len(made.images) == 3
    assert {name: made.made_by[name] for name in ("run", "images_seen", "ema", "sampler", "steps", "nfe", "seeds")} == {
        "run": "one",
        "images_seen": 500,
        "ema": True,
        "sampler": "heun",
        "steps": 2,
        "nfe": 3,
        "seeds": "2 to 4",
    }
    assert made.images.class_names == ("cats", "dogs", "snow")
    assert made.images.labels.tolist() == [2, 0, 1]
    assert samples.missing(range(6), context().world) == 3
