"""Random tensors that are the same in every run."""

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit normal numbers that depend on the seed."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
