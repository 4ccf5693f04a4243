"""Coordinate search over the noise levels between the highest and 0, for whatever error a sampler makes with them."""

import math
from collections.abc import Callable, Sequence

Sigmas = tuple[float, ...]
"""Falling noise levels above 0."""

Error = Callable[[Sigmas], float]
"""What is to be small; the same whenever it is asked."""

FIRST_FRACTION, LAST_FRACTION = 0.3, 0.04
"""A level first moves by so much of the way to its neighbor, on a logarithmic axis, and in the end by so much."""

TRIALS = 12
"""For each level that may move, on average; the search ends with them at the latest."""


def refined(error: Error, starts: Sequence[Sigmas], lowest: float) -> Sigmas:
    """The best of `starts`, which begin with the same level, with its other levels moved where that makes the error
    smaller.

    In turn each level moves as long as it gains. Where it gains in neither direction, it tries half as far next time.
    It never reaches its neighbors or `lowest`, so that levels stay falling. The search is deterministic: with recorded
    errors it goes the same way again.
    """
    best = min(starts, key=error)
    left = TRIALS * (len(best) - 1)
    fractions, upward = [FIRST_FRACTION] * len(best), [True] * len(best)
    while left > 0 and max(fractions[1:]) >= LAST_FRACTION:
        for i in [i for i in range(1, len(best)) if fractions[i] >= LAST_FRACTION]:
            before = best
            for up in (upward[i], not upward[i]):
                while left > 0:
                    left -= 1
                    moved = _moved(best, i, up, fractions[i], lowest)
                    if error(moved) >= error(best):
                        break
                    best, upward[i] = moved, up
                if best != before:
                    break
            if best == before:
                fractions[i] /= 2
    return best


def _moved(sigmas: Sigmas, i: int, upward: bool, fraction: float, lowest: float) -> Sigmas:
    """The levels with the i-th a fraction of the way toward the next one above or below."""
    below = sigmas[i + 1] if i + 1 < len(sigmas) else min(lowest, sigmas[i])
    toward = sigmas[i - 1] if upward else below
    level = math.exp((1 - fraction) * math.log(sigmas[i]) + fraction * math.log(toward))
    return (*sigmas[:i], level, *sigmas[i + 1 :])
