"""The profile of an EMA is what its updates come to, and has the length that EDM2 says."""

import numpy as np
import pytest
import torch
from torch import nn

from undiffuse.runs.ema_profile import ema_length, ema_profile, moments, power_function_profile
from undiffuse.training.ema import update_ema


@pytest.mark.parametrize("halflife_images", [10**9, 300], ids=["growing half-life", "half-life that stops growing"])
def test_the_profile_is_what_the_updates_come_to(halflife_images: float) -> None:
    """Each step has a weight of its own, 1 then and 0 before and after: its EMA is how much the step counts."""
    steps, batch = 2000, 10
    ema, network = nn.Linear(steps, 1, bias=False).double(), nn.Linear(steps, 1, bias=False).double()
    for step in range(steps):
        with torch.no_grad():
            network.weight.zero_()[0, step] = 1
        update_ema(ema, network, batch, (step + 1) * batch, halflife_images)
    counted = ema.get_parameter("weight").detach().numpy()[0]
    images = (np.arange(steps) + 1.0) * batch
    expected = ema_profile(images, steps * batch, halflife_images) * batch
    # A step's rate is 1 - 2^(-batch / half-life), of which the profile has the first order: half of that square.
    order = batch * np.log(2) / min(halflife_images, 0.05 * steps * batch)
    assert np.abs(counted - expected).max() < 2 * order * expected.max()
    assert np.abs(counted - expected).max() < 0.05 * expected.max()


@pytest.mark.parametrize("halflife_images", [10**9, 3000.0])
def test_a_profile_is_a_density_of_what_was_before_the_snapshot(halflife_images: float) -> None:
    images = moments(100_000)
    profile = ema_profile(images, 60_000, halflife_images)
    assert profile.sum() * 5 == pytest.approx(1, abs=0.002)
    assert not profile[images > 60_000].any()
    assert (profile >= 0).all()


def test_the_length_as_trained_is_that_of_the_power_function() -> None:
    kappa = np.log(2) / 0.05  # The profile is proportional to t^(kappa - 1).
    length = np.sqrt(kappa / ((kappa + 1) ** 2 * (kappa + 2)))
    assert ema_length(63_360, 500_000) == pytest.approx(length, rel=1e-4)
    assert ema_length(200_000_000, 500_000) == pytest.approx(500_000 / np.log(2) / 200_000_000, rel=1e-3)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.15, 0.25])
def test_a_power_function_has_the_length_asked_for(length: float) -> None:
    images = moments(5000)
    profile = power_function_profile(images, 5000, length)
    weights = profile * 5000 / len(images)
    assert weights.sum() == pytest.approx(1, rel=1e-4)
    mean = (weights * images).sum()
    assert np.sqrt((weights * (images - mean) ** 2).sum()) / 5000 == pytest.approx(length, rel=1e-3)
