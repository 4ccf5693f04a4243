"""Gaussian images, whose denoiser and probability flow have closed forms."""

from collections.abc import Callable

import torch
from torch import Tensor

from undiffuse.diffusion.denoiser import Denoise

Number = float | Tensor
Draw = Callable[[], Tensor]


def gaussian(mean: Number, std: Number) -> Denoise:
    """The exact denoiser of pixels that are N(mean, std^2), each on its own."""

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        noise = sigma.view(-1, 1, 1, 1) ** 2
        return (std**2 * x + noise * mean) / (std**2 + noise)

    return denoise


def on_the_path(x: Tensor, start: Tensor, sigma: Tensor, mean: Number, std: Number) -> Tensor:
    """Where the flow through x at level `start` is at `sigma`: x - mean shrinks with the marginal's deviation."""
    return mean + (x - mean) * torch.sqrt((std**2 + sigma**2) / (std**2 + start**2))


class Impulses:
    """Stands for the normal numbers that a sampler draws, `draws` of them: the n-th is 1 in pixel n and 0 elsewhere.

    What a linear sampler makes of it, in the first pixel without any noise, tells its moments exactly.
    """

    def __init__(self, draws: int):
        self.rows = iter(torch.eye(draws + 1, dtype=torch.float64)[1:])

    def __call__(self) -> Tensor:
        return next(self.rows).view(1, 1, 1, -1)

    @staticmethod
    def moments(x: Tensor) -> tuple[float, float]:
        """Mean and variance of a pixel that such numbers were made into."""
        mean, *responses = x.flatten().tolist()
        return mean, sum((response - mean) ** 2 for response in responses)


def drawing(*shape: int, seed: int = 0) -> Draw:
    """Unit normal numbers, new at each call, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, dtype=torch.float64, generator=generator)
