"""How far a run is."""

import json
import os
import time
from pathlib import Path

import pytest
from helpers.making import noise, save

from undiffuse.config import with_settings
from undiffuse.runs.run import Run, create_run
from undiffuse.studio.progress import card, standing

HOSTILE = "<img src=x onerror=alert(1)>"


def logged(run: Run, *lines: dict) -> Run:
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture
def by_images(preset_config) -> Run:
    settings = ["training.total_images=1000", "training.total_minutes=null"]
    return create_run(Path("runs/a"), with_settings(preset_config("small"), settings))


@pytest.fixture
def by_minutes(preset_config) -> Run:
    settings = ["training.total_images=null", "training.total_minutes=2"]
    return create_run(Path("runs") / HOSTILE, with_settings(preset_config("small"), settings))


def test_what_is_left_follows_from_the_budget_in_images(by_images: Run) -> None:
    now = standing(by_images, [{"images": 250, "loss": 0.5, "seconds": 10.0}])
    assert (now.fraction, now.seconds_left, now.budget) == (0.25, 30.0, "1,000 images")


def test_what_is_left_follows_from_the_budget_in_minutes(by_minutes: Run) -> None:
    now = standing(by_minutes, [{"images": 250, "loss": 0.5, "seconds": 90.0}])
    assert (now.fraction, now.seconds_left, now.budget) == (0.75, 30.0, "2 minutes")


def test_before_the_first_line_nothing_is_promised(by_images: Run) -> None:
    now = standing(by_images, [])
    assert (now.images, now.fraction, now.seconds_left, now.loss) == (0, 0.0, None, None)


@pytest.mark.parametrize(("between", "silent", "trains"), [(1, 30, True), (1, 300, False), (200, 300, True)])
def test_a_slow_run_may_be_silent_for_longer(by_images: Run, between: float, silent: float, trains: bool) -> None:
    lines = [{"images": 10 * i, "loss": 1.0, "seconds": between * i} for i in (1, 2, 3)]
    then = time.time() - silent
    os.utime(logged(by_images, *lines).log_file, (then, then))
    assert standing(by_images, lines).is_training == trains


def test_a_card_shows_curve_preview_losses_and_time_left(by_images: Run) -> None:
    save(by_images.folder / "previews" / "000000000400-ema.png", noise(1))
    lines = [{"images": 100 * i, "loss": 1 / i, "seconds": 2.0 * i} for i in (1, 2, 4)]
    lines[-1]["held_out_loss"] = 0.375
    shown = card(logged(by_images, *lines), is_training=True)
    assert "about 12 s left" in shown
    assert "0.3750" in shown
    assert "<svg" in shown
    assert "Preview after 400 images" in shown
    assert 'class="state training"' in shown
    assert 'class="state stopped"' in card(by_images, is_training=False)


def test_names_are_text(by_minutes: Run) -> None:
    shown = card(logged(by_minutes, {"images": 1, "loss": 1.0, "seconds": 1.0}))
    assert HOSTILE not in shown
    assert "&lt;img src=x" in shown
