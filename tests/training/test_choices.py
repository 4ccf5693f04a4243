"""What a config leaves open is chosen once, by measurement where that pays, and kept when the run is resumed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from undiffuse.config import Config
from undiffuse.training import choices
from undiffuse.training.choices import as_begun, chosen

CPU = torch.device("cpu")


@pytest.fixture
def open_config(tiny: Config) -> Config:
    """Everything left open that may be."""
    return replace(tiny, training=replace(tiny.training, batch=128, microbatch=None, held_out_images=None))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], list[int]]:
    """Makes each microbatch take so many seconds for an image; returns the sizes that are timed."""

    def make(seconds_per_image: dict[int, float]) -> list[int]:
        timed: list[int] = []

        def step(images: int) -> float:
            timed.append(images)
            return images * seconds_per_image[images]

        monkeypatch.setattr(choices, "_step_timer", lambda config, device: step)
        return timed

    return make


@pytest.mark.parametrize(
    ("seconds_per_image", "best"),
    [
        ({8: 0.14, 16: 0.13, 32: 0.12, 64: 0.13, 128: 0.1}, 32),
        ({8: 0.10, 16: 0.11, 32: 0.05, 64: 0.05, 128: 0.05}, 8),
        ({8: 0.10, 16: 0.09, 32: 0.08, 64: 0.07, 128: 0.06}, 128),
    ],
)
def test_the_microbatch_is_the_fastest_until_they_get_slower(
    open_config: Config, machine: Callable, seconds_per_image: dict[int, float], best: int, notices
) -> None:
    timed = machine(seconds_per_image)
    assert chosen(open_config, 1797, CPU, 1).training.microbatch == best
    assert timed[0] == 8
    assert max(timed) <= 2 * best
    assert any(f"microbatch {best} images at once, the fastest" in message for message in notices.messages)


def test_a_quick_network_is_not_measured_further(open_config: Config, machine: Callable) -> None:
    timed = machine({8: 0.001})
    assert chosen(open_config, 1797, CPU, 2).training.microbatch == 64
    assert timed == [8, 8]


def test_measuring_ends_with_its_share_of_the_budget(open_config: Config, machine: Callable) -> None:
    timed = machine({8: 0.5, 16: 0.4, 32: 0.3})
    training = replace(open_config.training, total_images=None, total_minutes=10.0)  # 1% of it is 6 s.
    assert chosen(replace(open_config, training=training), 1797, CPU, 1).training.microbatch == 8
    assert timed == [8, 8]


def test_a_real_network_can_be_timed(open_config: Config) -> None:
    assert choices._step_timer(open_config, CPU)(4) > 0


def test_what_is_given_is_kept(open_config: Config) -> None:
    given = replace(open_config, training=replace(open_config.training, microbatch=3, held_out_images=5))
    assert chosen(given, 1797, CPU, 1) == given


def test_a_resumed_run_keeps_what_was_chosen(open_config: Config) -> None:
    begun = replace(open_config, training=replace(open_config.training, microbatch=16, held_out_images=89))
    assert as_begun(open_config, begun) == begun
    other = replace(open_config, training=replace(open_config.training, microbatch=4))
    assert as_begun(other, begun).training.microbatch == 4
    assert as_begun(other, begun).training.held_out_images == 89


def test_elsewhere_than_on_a_cpu_nothing_is_measured(open_config: Config) -> None:
    assert chosen(open_config, 1797, torch.device("cuda"), 1).training.microbatch == 128


@pytest.mark.parametrize(("images", "held_out"), [(1797, 89), (100_000, 1000)])
def test_a_twentieth_and_at_most_a_thousand_are_held_out_unless_given(
    open_config: Config, images: int, held_out: int
) -> None:
    assert chosen(open_config, images, torch.device("cuda"), 1).training.held_out_images == held_out
