"""The search over noise levels, on errors whose minimum is known."""

import math
from itertools import pairwise

from undiffuse.tuning.search import TRIALS, Sigmas, refined

BEST = (80.0, 9.0, 2.5, 0.4)
STARTS = [(80.0, 20.0, 5.0, 0.002), (80.0, 40.0, 1.0, 0.1)]


def distance(sigmas: Sigmas) -> float:
    """From BEST, on a logarithmic axis."""
    return sum(math.log(s / b) ** 2 for s, b in zip(sigmas, BEST, strict=True))


def test_it_finds_a_minimum_and_all_it_tries_falls() -> None:
    tried: list[Sigmas] = []

    def error(sigmas: Sigmas) -> float:
        tried.append(sigmas)
        return distance(sigmas)

    found = refined(error, STARTS, 0.002)
    assert distance(found) < 0.05 < min(map(distance, STARTS)) / 50
    assert len(set(tried)) <= len(STARTS) + TRIALS * 3
    for sigmas in tried:
        assert sigmas[0] == 80
        assert all(low < high for high, low in pairwise([*sigmas, 0.0]))
        assert sigmas[-1] >= 0.002


def test_a_start_that_is_best_stays() -> None:
    assert refined(lambda sigmas: 0.0 if sigmas == BEST else 1.0, [*STARTS, BEST], 0.002) == BEST


def test_it_goes_the_same_way_again_whatever_is_remembered() -> None:
    known: dict[Sigmas, float] = {}

    def remembering(sigmas: Sigmas) -> float:
        return known.setdefault(sigmas, distance(sigmas))

    first = refined(remembering, STARTS, 0.002)
    half = dict(list(known.items())[: len(known) // 2])
    asked: list[Sigmas] = []

    def going_on(sigmas: Sigmas) -> float:
        if sigmas not in half:
            asked.append(sigmas)
            half[sigmas] = distance(sigmas)
        return half[sigmas]

    assert refined(going_on, STARTS, 0.002) == first
    assert 0 < len(asked) < len(known)
