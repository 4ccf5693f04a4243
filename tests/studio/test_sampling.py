"""What visitors ask for, and which moments of it they see."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import undiffuse
from undiffuse.config import SamplingConfig
from undiffuse.data.pixels import to_nhwc, to_pixels
from undiffuse.report import grids
from undiffuse.sampling.model import Model
from undiffuse.sampling.tuned import TunedSchedule, save_tuned
from undiffuse.studio import sampling
from undiffuse.studio.sampling import EVERY_CLASS, Film, Request, label_choices, shown


@pytest.fixture(scope="module")
def digits() -> Model:
    return undiffuse.load("digits", device="cpu")


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SHOW_SECONDS", 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 10**9},
        {"count": 65},
        {"count": -1},
        {"seed": -1},
        {"seed": 2**60},
        {"seed": "0; drop"},
        {"guidance": float("nan")},
        {"guidance": 1e9},
        {"label": None},
        {"label": "x" * 1000},
        {"view": "other"},
        {"run": ["digits"]},
        {"interval": 3},
        {"interval": "0.28-1.6", "guidance": 1},
        {"guide": "digits@3", "guidance": 1.0},
        {"guide": "x" * 1000, "guidance": 2.0},
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    values: dict[str, Any] = {"run": "digits", **wrong}
    with pytest.raises(ValidationError):
        Request(**values)


def test_the_last_moment_is_what_sample_makes(digits: Model, every_step: None) -> None:
    asked = Request(run="digits", label="3", guidance=2.0, sampler="heun", steps=4, seed=7, count=3)
    moments = list(shown(asked.steps_of(digits), "x", threading.Event()))
    expected = digits.sample(3, label="3", guidance=2.0, sampler="heun", steps=4, seed=7)
    assert [moment.step for moment in moments] == [1, 2, 3, 4]
    assert np.array_equal(to_nhwc(moments[-1].pixels), expected)
    assert asked.nfe(digits) == 2 * (2 * 4 - 1)


@pytest.mark.parametrize(("label", "nfe"), [(EVERY_CLASS, 10), ("3", 10)])
def test_nfe_counts_guidance_where_there_is_a_class(digits: Model, label: str, nfe: int) -> None:
    assert Request(run="digits", label=label, guidance=3.0, steps=5).nfe(digits) == nfe


def test_guidance_of_no_class_is_refused_unless_it_is_the_runs_own(digits: Model) -> None:
    assert Request(run="digits", label="none", guidance=1.5, steps=5).nfe(digits) == 5
    for wishes in ({"guidance": 3.0}, {"guidance": 1.5, "interval": "0.28-1.6"}):
        asked: dict[str, Any] = {"run": "digits", "label": "none", "steps": 9, **wishes}
        with pytest.raises(ValueError, match="has nothing to strengthen here: choose what to make"):
            Request(**asked).steps_of(digits)


def test_an_interval_costs_what_it_is_counted(digits: Model, every_step: None) -> None:
    images = 0

    def predict(x, sigma, label):
        nonlocal images
        images += len(x)
        return digits.predict(x, sigma, label)

    asked = Request(run="digits", label="3", guidance=2.0, interval=" 0.28-1.6 ", steps=9, count=1)
    assert 9 < asked.nfe(digits) < 18
    steps = list(asked.steps_of(replace(digits, predict=predict)))
    assert images == asked.nfe(digits)
    expected = digits.sample(1, label="3", guidance=2.0, guidance_interval=(0.28, 1.6), steps=9)
    assert np.array_equal(to_nhwc(to_pixels(steps[-1].x)), expected)


def test_a_guide_costs_an_evaluation_a_step(digits: Model) -> None:
    weaker = replace(digits, run=None, predict=lambda x, sigma, label: digits.predict(x, sigma, None))
    guided = digits.guided_by(weaker)
    asked = Request(run="digits", label="none", guidance=2.0, guide="weaker", steps=5, count=2)
    assert asked.nfe(guided) == 10
    assert len(list(asked.steps_of(guided))) == 5


def test_names_say_seed_and_class(digits: Model) -> None:
    assert Request(run="digits", seed=9, count=2).names(digits) == ["seed 9, 9", "seed 10, 0"]
    assert Request(run="digits", label="none", count=1).names(digits) == ["seed 0"]


def test_after_a_stop_no_step_is_taken(digits: Model, every_step: None) -> None:
    stop, taken = threading.Event(), 0

    def counted():
        nonlocal taken
        for step in Request(run="digits", steps=50, count=1).steps_of(digits):
            taken += 1
            yield step

    for moment in shown(counted(), "x", stop):
        if moment.step == 3:
            stop.set()
    assert taken == 3
    assert moment.step == 3


def test_slow_pages_skip_moments_but_not_the_last(digits: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SHOW_SECONDS", 1000.0)
    moments = list(shown(Request(run="digits", steps=6, count=1).steps_of(digits), "x0", threading.Event()))
    assert [moment.step for moment in moments] == [1, 6]


def test_the_expected_image_is_shown_where_it_was_asked_for(digits: Model, every_step: None) -> None:
    asked = Request(run="digits", steps=5, count=1)
    views = [next(iter(shown(asked.steps_of(digits), view, threading.Event()))).pixels for view in ("x", "x0")]
    noisy, clean = (view.float() for view in views)
    corners = torch.tensor([0, -1])
    assert clean[0, 0, corners][:, corners].mean() < 30, "digits are black at the corners"
    assert noisy.std() > 40


def test_a_film_keeps_few_frames_with_the_last(digits: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "FILM_FRAMES", 4)
    film = Film(20)
    steps = list(film.watch(Request(run="digits", sampler="euler", steps=20, count=1).steps_of(digits)))
    assert len(film.frames) == 4
    assert torch.equal(film.frames[-1].noisy, sampling.noisy(steps[-1]))
    assert film.gif()[:6] == b"GIF89a"


def test_classes_can_be_chosen_by_name() -> None:
    assert label_choices(("rose", "none"))[2:] == [("rose", "rose"), ("none", "none")]
    assert label_choices(()) == [("no classes", EVERY_CLASS)]


def test_tuned_noise_levels_are_named(digits: Model) -> None:
    tuned = SamplingConfig(steps=3, guidance=digits.config.sampling.guidance, sigmas=(80.0, 5.0, 0.5))
    run, checkpoint = digits.origin
    assert not Request(run="digits", steps=3).is_tuned(digits)
    save_tuned(run, TunedSchedule(tuned, checkpoint.digest("ema"), checkpoint.images, "pixel error", 0.1, 0.2, 32))
    guidance = digits.config.sampling.guidance
    assert Request(run="digits", steps=3, guidance=guidance).is_tuned(digits)
    assert not Request(run="digits", steps=4, guidance=guidance).is_tuned(digits)
    assert not Request(run="digits", steps=3, guidance=guidance + 1).is_tuned(digits)
