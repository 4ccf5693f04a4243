import math

import numpy as np
import pytest
import torch
from helpers.making import noise

from undiffuse.data.pixels import to_pixels
from undiffuse.exploration.noising import add_noise, noise_level, paper_schedules, tabulate

T = 1000


def linear_alpha_bar(t: int) -> float:
    """Ho et al. 2020: the product of 1 - beta up to t, beta from 1e-4 to 0.02."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / (T - 1)) for i in range(t))


def cosine_alpha_bar(t: int) -> float:
    """Nichol & Dhariwal 2021, Eq. 17, before the cap on beta, which only affects the last timesteps."""
    f = [math.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (t / T, 0)]
    return f[0] / f[1]


@pytest.mark.parametrize("t", [1, 100, 500, 900])
def test_signal_and_noise_match_the_papers(t: int) -> None:
    linear, cosine = paper_schedules(T)
    for schedule, alpha_bar in ((linear, linear_alpha_bar(t)), (cosine, cosine_alpha_bar(t))):
        at = noise_level(schedule, t)
        assert at.snr == pytest.approx(alpha_bar / (1 - alpha_bar), rel=1e-6)
        assert at.signal == pytest.approx(math.sqrt(alpha_bar), rel=1e-6)
        assert at.sigma == pytest.approx(math.sqrt(1 / alpha_bar - 1), rel=1e-6)


def test_the_table_is_even_and_ends_with_the_last_timestep() -> None:
    found = tabulate(paper_schedules(T))
    assert [at.t for at in found.timesteps] == list(range(50, 1001, 50))
    assert found.timesteps[9].schedules["linear"].snr == pytest.approx(
        linear_alpha_bar(500) / (1 - linear_alpha_bar(500)), rel=1e-6
    )
    assert found.num_timesteps == T


def test_the_crossover_is_where_alpha_bar_is_one_half() -> None:
    found = tabulate(paper_schedules(T)).crossover
    for name, alpha_bar in (("linear", linear_alpha_bar), ("cosine", cosine_alpha_bar)):
        t = round(found[name] * T)
        assert alpha_bar(t) <= 0.5 < alpha_bar(t - 1)


def test_noisy_images_are_ddpms_x_t_with_the_same_noise() -> None:
    image = np.asarray(noise(0, 8, 8))
    linear, cosine = paper_schedules(T)
    early, late = add_noise(image, linear, [250, 1000])
    (other,) = add_noise(image, cosine, [1000])
    x0 = torch.tensor(image).permute(2, 0, 1) / 127.5 - 1
    # The last timestep is nearly pure noise, from which x_t at t = 250 follows.
    eps = torch.from_numpy(late).permute(2, 0, 1) / 127.5 - 1
    alpha_bar = linear_alpha_bar(250)
    expected = to_pixels((math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * eps)[None])[0].permute(1, 2, 0).numpy()
    inside = (late > 0) & (late < 255)  # Where the noise was not clipped.
    assert np.abs(expected.astype(int) - early)[inside].max() <= 2
    assert np.abs(late.astype(int) - other)[inside].max() <= 2


def test_another_seed_gives_different_noise() -> None:
    image = np.asarray(noise(0, 8, 8))
    first, second = (add_noise(image, paper_schedules(T)[0], [500], seed) for seed in (0, 1))
    assert (add_noise(image, paper_schedules(T)[0], [500], 0) == first).all()
    assert (first != second).any()
