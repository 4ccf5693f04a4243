"""How images are made smaller: the mean over areas."""

import torch
from jaxtyping import Float64
from torch import Tensor


def areas(small: int, large: int) -> Float64[Tensor, "small large"]:
    """The mean over areas along one side, as a matrix: how far each small pixel covers each large one."""
    edges = torch.arange(small + 1, dtype=torch.float64) * (large / small)
    left = torch.arange(large, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], left + 1) - torch.maximum(edges[:-1, None], left)
    return overlap.clamp(min=0) * (small / large)
