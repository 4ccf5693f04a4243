"""The dynamic program finds what trying every path finds."""

from itertools import combinations, pairwise

import pytest
import torch
from helpers.noise_paths import price

from undiffuse.tuning.paths import cheapest_path


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
@pytest.mark.parametrize("coefficient", [1.0, 1.3])
def test_the_cheapest_path_is_the_cheapest_of_all(steps: int, coefficient: float) -> None:
    generator = torch.Generator().manual_seed(steps)
    for _ in range(20):
        cost = torch.rand(7, 7, generator=generator, dtype=torch.float64)
        ending = torch.rand(7, generator=generator, dtype=torch.float64)
        every = [[0, *rest] for rest in combinations(range(1, 7), steps)]
        best = min(every, key=lambda path: price(path, cost, ending, coefficient))
        assert cheapest_path(cost, steps, ending, coefficient) == best


def test_a_path_cannot_be_longer_than_its_levels_nor_lead_through_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="4 steps do not fit 4 noise levels"):
        cheapest_path(torch.ones(4, 4), 4, torch.zeros(4))
    with pytest.raises(ValueError, match="No path of 2 steps"):
        cheapest_path(torch.full((4, 4), torch.inf), 2, torch.zeros(4))


def test_every_path_falls() -> None:
    path = cheapest_path(-torch.ones(9, 9).cumsum(1), 5, torch.zeros(9))
    assert all(here < there for here, there in pairwise(path))
