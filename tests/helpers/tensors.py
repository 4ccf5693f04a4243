"""Tensors that are random and always the same."""

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit normal numbers, others for another seed."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
