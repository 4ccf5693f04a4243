"""Gaussian images, whose denoiser and probability flow have closed forms."""

from collections.abc import Callable

import torch
from torch import Tensor

from undiffuse.diffusion.denoiser import Denoise

Number = float | Tensor
Noise = Callable[[], Tensor]


def gaussian(mean: Number, std: Number) -> Denoise:
    """The exact denoiser of independent pixels that are N(mean, std^2)."""

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        variance = sigma.view(-1, 1, 1, 1) ** 2
        return (std**2 * x + variance * mean) / (std**2 + variance)

    return denoise


def on_the_path(x: Tensor, start: Tensor, sigma: Tensor, mean: Number, std: Number) -> Tensor:
    """The probability flow through x at level `start`, followed to `sigma`: x - mean scales with the marginal's std."""
    return mean + (x - mean) * torch.sqrt((std**2 + sigma**2) / (std**2 + start**2))


class Impulses:
    """Replaces the noise of a sampler, for up to `calls` calls: the n-th is 1 in pixel n and 0 elsewhere.

    What a linear sampler makes of it, with no noise at all in the first pixel, gives its moments exactly.
    """

    def __init__(self, calls: int):
        self.rows = iter(torch.eye(calls + 1, dtype=torch.float64)[1:])

    def __call__(self) -> Tensor:
        return next(self.rows).view(1, 1, 1, -1)

    @staticmethod
    def moments(x: Tensor) -> tuple[float, float]:
        """Mean and variance of a pixel of a sample made from impulses."""
        mean, *responses = x.flatten().tolist()
        return mean, sum((response - mean) ** 2 for response in responses)


def noise_source(*shape: int, seed: int = 0) -> Noise:
    """A function that returns new unit normal noise at each call, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, dtype=torch.float64, generator=generator)
