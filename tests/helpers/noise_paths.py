"""What a path along noise levels costs, added up step by step."""

from collections.abc import Sequence

from torch import Tensor


def price(path: Sequence[int], cost: Tensor, ending: Tensor, coefficient: float = 1.0) -> float:
    """The cost of the path's steps and of ending at its last node; all that follows a step times the coefficient."""
    if len(path) == 1:
        return float(ending[path[0]])
    return float(cost[path[0], path[1]]) + coefficient * price(path[1:], cost, ending, coefficient)
