"""What held-out losses say is right for losses whose truth is known, and no more certain than they are."""

import pytest
import torch
from torch import Tensor

from undiffuse.runs.finding import Change, change, finding, memorization_gap

IMAGES = 100


def difficulties(seed: int) -> Tensor:
    """Losses of images, some of them many times those of others."""
    return torch.randn(IMAGES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()


def noisy(losses: Tensor, factor: float, seed: int, spread: float = 0.05) -> Tensor:
    noise = torch.randn(len(losses), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return losses * factor * (spread * noise).exp()


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.0, 1.1])
def test_a_change_is_found_within_its_standard_error(factor: float) -> None:
    before = difficulties(0)
    found = change(before, noisy(before, factor, 1))
    # The mean of n terms with standard deviation 0.05 has 0.05 / sqrt(n).
    assert found.standard_error == pytest.approx(0.05 / IMAGES**0.5, rel=0.25)
    assert found.value == pytest.approx(torch.tensor(factor).log().item(), abs=4 * found.standard_error)


def test_changes_without_a_cause_are_seldom_clear() -> None:
    before = difficulties(0)
    clear = sum(change(before, noisy(before, 1.0, seed)).is_clear for seed in range(1, 401))
    # Beyond two standard errors lies 4.6% of a normal distribution: 18 of 400, with standard deviation 4.2.
    assert 18 - 4 * 4.2 < clear < 18 + 4 * 4.2


def test_that_images_differ_in_difficulty_is_no_memorization() -> None:
    held_out, training = difficulties(0), 3 * difficulties(1)
    gap = memorization_gap((held_out, training), (noisy(held_out, 0.4, 2), noisy(training, 0.4, 3)))
    assert not gap.is_clear


def test_training_images_that_pull_ahead_are_memorization() -> None:
    held_out, training = difficulties(0), difficulties(1)
    gap = memorization_gap((held_out, training), (noisy(held_out, 0.8, 2), noisy(training, 0.6, 3)))
    assert gap.is_clear
    assert gap.value == pytest.approx(torch.tensor(0.8 / 0.6).log().item(), abs=4 * gap.standard_error)


@pytest.mark.parametrize(
    ("recent", "gap", "told"),
    [
        (
            (-0.03, 0.002),
            (0.01, 0.02),
            ("still falling, by 3.0%", "a larger budget would help", "no sign of memorization"),
        ),
        (
            (-0.003, 0.002),
            (0.04, 0.001),
            ("no longer changing clearly", "would help little", "no sign of memorization"),
        ),
        ((0.02, 0.002), (0.3, 0.02), ("it rose by 2.0%", "makes it worse", "fallen 30.0% (± 2.0%) further", "flip")),
        ((-0.01, 0.002), (0.3, 0.02), ("still falling", "has begun to memorize", "more training does not")),
    ],
)
def test_the_finding_names_what_is_clear(recent: tuple, gap: tuple, told: tuple[str, ...]) -> None:
    said = finding({"held_out_loss": 0.25, "held_out_change": recent, "memorization_gap": gap})
    assert all(part in said for part in ("0.2500", *told))


def test_the_first_measurement_says_nothing() -> None:
    assert finding({"held_out_loss": 0.25}) == ""


def test_exactly_two_standard_errors_are_not_clear() -> None:
    assert not Change(0.02, 0.01).is_clear
    assert Change(-0.0201, 0.01).is_clear
