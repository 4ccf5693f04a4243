"""When tuned noise levels are used, what is said of it, and what becomes of hostile files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from undiffuse.config import Config, SamplingConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import Run, create_run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import sampling_config
from undiffuse.sampling.tuned import NAME, TunedSchedule, save_tuned, tuned_schedules

LEVELS = (80.0, 9.0, 1.0)


@pytest.fixture
def run(preset_config: Callable[[str], Config], small_network: UNetConfig, random_unet: Callable) -> Run:
    run = create_run(Path("runs/one"), replace(preset_config("small"), network=small_network))
    ema = random_unet(small_network).state_dict()
    run.save(500, {"network": {name: 2 * each for name, each in ema.items()}, "ema": ema}, {}, keep=2)
    return run


@pytest.fixture
def model(run: Run) -> Model:
    return load_model(run)


def schedule(model: Model, **options: Any) -> TunedSchedule:
    return TunedSchedule(
        sampling=SamplingConfig(**({"sampler": "ipndm", "steps": 3, "sigmas": LEVELS} | options)),
        weights_sha256=model.origin[1].digest(model.weights),
        images_seen=500,
        measure="pixel error",
        error=0.01,
        default_error=0.02,
        images_measured=32,
    )


def test_tuned_levels_are_used_for_their_sampler_and_steps_alone(
    model: Model, run: Run, notices: pytest.LogCaptureFixture
) -> None:
    plain = model.sample(2, steps=3)
    save_tuned(run, schedule(model))
    assert [float(step.sigma) for step in model.steps(2, steps=3)] == [9.0, 1.0, 0.0]
    assert notices.messages == ["Tuned noise levels for 3 ipndm steps: pixel error 0.0100 instead of 0.0200."]
    assert (model.sample(2, steps=3) != plain).any()
    assert (model.sample(2, steps=3, set={"sigmas": "karras"}) == plain).all()
    assert (model.sample(2, steps=3, set={"sigmas": LEVELS}) == model.sample(2, steps=3)).all()
    for sampler, steps in (("ipndm", 4), ("dpmpp_2m", 3), ("euler", 3)):
        assert model.tuned(sampling_config(model.config, sampler, steps)).sigmas == "auto"
    assert model.tuned(sampling_config(model.config, steps=3, precision="bf16")).sigmas == LEVELS


def test_for_another_guidance_levels_are_used_only_where_asked_for(
    model: Model, run: Run, notices: pytest.LogCaptureFixture
) -> None:
    save_tuned(run, schedule(model))
    assert model.tuned(sampling_config(model.config, steps=3, guidance=2)).sigmas == "auto"
    assert notices.messages[-1].startswith("The tuned noise levels were found for guidance 1 and its other options")
    asked = sampling_config(model.config, steps=3, guidance=2, settings=["sigmas=tuned"])
    assert model.tuned(asked).sigmas == LEVELS
    save_tuned(run, schedule(model, guidance=2.0, sigmas=(80.0, 5.0, 2.0)))
    assert model.tuned(sampling_config(model.config, steps=3, guidance=2)).sigmas == (80.0, 5.0, 2.0)
    assert model.tuned(sampling_config(model.config, steps=3)).sigmas == LEVELS
    assert len(tuned_schedules(run)) == 2
    save_tuned(run, schedule(model, sigmas=(80.0, 4.0, 2.0)))
    assert len(tuned_schedules(run)) == 2, "the same options again"
    assert model.tuned(sampling_config(model.config, steps=3)).sigmas == (80.0, 4.0, 2.0)


def test_levels_of_other_weights_are_not_used(model: Model, run: Run, notices: pytest.LogCaptureFixture) -> None:
    save_tuned(run, schedule(model))
    raw = load_model(run, weights="network")
    later = model.origin[1].tensors("network")
    run.save(900, {"network": later, "ema": later}, {}, keep=2)
    for other in (raw, load_model(run)):
        notices.clear()
        assert other.tuned(sampling_config(other.config, steps=3)).sigmas == "auto"
        (said,) = notices.messages
        assert said.startswith("The tuned noise levels are of other weights, after 500 images, so the usual ones are")
        assert said.endswith("undiffuse tune-sampler one --sampler ipndm --steps 3 finds others.")
        with pytest.raises(ValueError, match=r"other weights, after 500 images: run undiffuse tune-sampler one"):
            other.sample(1, steps=3, set={"sigmas": "tuned"})


def test_levels_are_not_for_a_guided_model(model: Model, run: Run, notices: pytest.LogCaptureFixture) -> None:
    save_tuned(run, schedule(model, guidance=2.0))
    guided = model.guided_by(load_model(run, weights="network"))
    assert guided.tuned(sampling_config(model.config, steps=3, guidance=2, guide=True)).sigmas == "auto"
    assert "were found without a guide" in notices.messages[-1]


def test_what_was_never_tuned_cannot_be_asked_for(model: Model) -> None:
    with pytest.raises(ValueError, match="There are no tuned noise levels for 5 ipndm steps: run undiffuse tune-"):
        model.sample(1, steps=5, set={"sigmas": "tuned"})


HOSTILE = {
    "not JSON": "{",
    "a list": "[]",
    "another version": {"version": 2},
    "a sampler that cannot be tuned": {"sampling.sampler": "euler"},
    "too few levels": {"sampling.sigmas": [80, 1]},
    "rising levels": {"sampling.sigmas": [1, 2, 3]},
    "levels below 0": {"sampling.sigmas": [80, 1, -1]},
    "words": {"sampling.sigmas": "auto"},
    "no digest": {"weights_sha256": "../../etc"},
    "a negative error": {"error": -1},
    "not a number": {"error": float("nan")},
    "unknown settings": {"command": "rm"},
    "unknown options": {"sampling.command": "rm"},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_in_a_sentence(change: str | dict[str, Any], model: Model, run: Run) -> None:
    file = save_tuned(run, schedule(model))
    values = json.loads(file.read_text())
    for path, value in change.items() if isinstance(change, dict) else ():
        *inside, name = path.split(".")
        target = values if path == "version" else values["schedules"][0]
        (target[inside[0]] if inside else target)[name] = value
    file.write_text(change if isinstance(change, str) else json.dumps(values))
    with pytest.raises(ValueError, match=rf"{NAME} is damaged \(.*\): remove it, and tune the sampler again\."):
        model.sample(1, steps=3)
    with pytest.raises(ValueError, match="is damaged"):
        save_tuned(run, schedule(model))
    assert model.sample(1, steps=3, set={"sigmas": "karras"}).shape == (1, 8, 8, 1), "without it nothing is read"


def test_a_file_of_any_size_is_not_read_whole(model: Model, run: Run) -> None:
    with open(run.folder / NAME, "wb") as file:
        file.truncate(10**12)
    with pytest.raises(ValueError, match="more than 4,194,304 bytes"):
        model.sample(1, steps=3)
