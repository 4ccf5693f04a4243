import math

import pytest
import torch

from undiffuse.utils.randomness import ImageRandomness, derived_seed, generator


def test_a_seed_depends_on_every_part_of_the_identity() -> None:
    identities = [("a", 1, 2), ("a", 2, 1), ("b", 1, 2), ("a", 1, 3), ("a", 12), ("a", 1), ("a", "1", 2), ("a", -1, 2)]
    seeds = {derived_seed(*identity) for identity in identities}
    assert len(seeds) == len(identities)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_stay_the_same_in_every_version() -> None:
    # Recorded: with another value, a seed would no longer give the noise that it gave before.
    assert derived_seed("noise", 0, 0) == 1243003816087847428
    assert generator("noise", 0, 0).initial_seed() == 1243003816087847428


def test_neighboring_seeds_and_indices_have_different_noise() -> None:
    draws = {
        (seed, index): torch.randn(16, generator=generator("noise", seed, index))
        for seed in range(4)
        for index in range(4)
    }
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 16


def test_the_noise_does_not_depend_on_the_batch() -> None:
    together = ImageRandomness("noise", 7, range(8))
    u, eps = together.uniform(), together.normal(3, 5, 4)
    for indices in ([5], [5, 2], [7, 6, 5, 4]):
        few = ImageRandomness("noise", 7, indices)
        assert torch.equal(few.uniform(), u[indices])
        assert torch.equal(few.normal(3, 5, 4), eps[indices])


@pytest.mark.parametrize("other", [("training", 0), ("noise", 1)])
def test_the_noise_depends_on_the_purpose_and_the_seed(other: tuple[str, int]) -> None:
    first = ImageRandomness("noise", 0, range(4)).normal(8)
    assert not torch.isclose(first, ImageRandomness(*other, range(4)).normal(8)).any()


def test_first_draws_of_many_images_are_normal_and_uniform() -> None:
    n = 4000
    eps = ImageRandomness("noise", 0, range(n)).normal().double()
    u = ImageRandomness("noise", 0, range(n)).uniform()
    # Five standard errors: 1/sqrt(n) of a mean, sqrt(2/n) of a variance, and sqrt(1/12n) of a uniform mean.
    assert abs(eps.mean()) < 5 / math.sqrt(n)
    assert abs(eps.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * n)
    assert u.dtype == torch.float64
    assert 0 <= u.min() < 0.01 < 0.99 < u.max() < 1


def test_consecutive_indices_are_uncorrelated() -> None:
    n = 4000
    eps = ImageRandomness("noise", 0, range(n + 1)).normal().double()
    # The correlation of n independent pairs has standard deviation 1/sqrt(n).
    assert abs((eps[1:] * eps[:-1]).mean()) < 5 / math.sqrt(n)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    randomness = ImageRandomness("noise", 0, range(3))
    randomness.normal(4)
    randomness.uniform()
    assert torch.equal(torch.random.get_rng_state(), before)
