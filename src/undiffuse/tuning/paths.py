"""The cheapest way along falling noise levels in a given number of steps, by dynamic programming."""

import torch
from jaxtyping import Float
from torch import Tensor


def cheapest_path(
    cost: Float[Tensor, "n n"], steps: int, ending: Float[Tensor, " n"], coefficient: float = 1.0
) -> list[int]:
    """The `steps + 1` rising nodes of the path from node 0 that costs least, the cost of ending at its last included.

    A step from j to k > j costs `cost[j, k]`; other entries are not read. All that follows a step is multiplied by
    `coefficient` (Chen et al. 2024, released code: above 1 late errors weigh more, since a path is an approximation of
    itself only where the steps before were exact).

    Raises:
        ValueError: there are more steps than levels, or no path has a finite cost.
    """
    if not 0 <= steps < len(cost):
        raise ValueError(f"{steps} steps do not fit {len(cost)} noise levels: choose fewer than these.")
    n = len(cost)
    forward = torch.where(torch.ones(n, n).triu(1).bool(), cost.double().cpu(), torch.inf)
    rest, choices = ending.double().cpu(), []
    for _ in range(steps):
        rest, choice = (forward + coefficient * rest).min(dim=1)
        choices.append(choice)
    if not torch.isfinite(rest[0]):
        raise ValueError(f"No path of {steps} steps has a finite cost: the model's predictions are not finite.")
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return path
