"""Where training looks: sigma drawn for each image, with the weight that makes up for looking unevenly."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from undiffuse.diffusion.noise import Draw

Gather = Callable[[Tensor], Tensor]
"""The same tensor of all processes, one after another, so that all learn the same."""


class SigmaSample(NamedTuple):
    sigma: Tensor
    """(b,)"""
    weight: Tensor
    """Of each image's loss, (b,): 1 / (T p), where level t is drawn with probability p out of T."""


@runtime_checkable
class SigmaSampler(Protocol):
    """How training draws sigma, which may depend on the losses that it has seen."""

    def draw(self, u: Float[Tensor, " b"]) -> SigmaSample:
        """The levels at the uniform quantiles u in [0, 1)."""
        ...

    def observe(self, sigma: Float[Tensor, " b"], loss: Float[Tensor, " b"], gather: Gather) -> None:
        """Takes note of this process's losses, before their weights."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All that `observe` has changed, for a checkpoint."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes up what `tensors` gave."""
        ...


class Fixed:
    """The same distribution throughout, every loss counting once."""

    def __init__(self, quantile: Draw):
        self.quantile = quantile

    def draw(self, u: Float[Tensor, " b"]) -> SigmaSample:
        return SigmaSample(self.quantile(u), torch.ones_like(u))

    def observe(self, sigma: Float[Tensor, " b"], loss: Float[Tensor, " b"], gather: Gather) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        pass


class LossSecondMomentResampler:
    """Levels of the chain in proportion to the root mean square of their last losses (Nichol & Dhariwal 2021, 3.3).

    Until each level has been seen `history` times all are drawn alike; later `uniform_share` of the draws still are.
    """

    def __init__(self, sigmas: Float[Tensor, " T"], history: int = 10, uniform_share: float = 0.001):
        self.sigmas, self.uniform_share = sigmas.double().cpu(), uniform_share
        self.losses = torch.zeros(len(sigmas), history, dtype=torch.float64)
        """The last of each level, oldest first."""
        self.seen = torch.zeros(len(sigmas), dtype=torch.int64)
        """How many of these there are."""

    def probabilities(self) -> Float64[Tensor, " T"]:
        """Of each level, before it is drawn."""
        num_timesteps, history = self.losses.shape
        if bool((self.seen < history).any()):
            return torch.full((num_timesteps,), 1 / num_timesteps, dtype=torch.float64)
        size = self.losses.square().mean(dim=1).sqrt()
        return (1 - self.uniform_share) * size / size.sum() + self.uniform_share / num_timesteps

    def draw(self, u: Float[Tensor, " b"]) -> SigmaSample:
        probabilities = self.probabilities()
        upper_ends = probabilities.cumsum(dim=0)
        index = torch.searchsorted(upper_ends, u.double() * upper_ends[-1], right=True).clamp(max=len(upper_ends) - 1)
        return SigmaSample(self.sigmas[index].to(u), (1 / (len(probabilities) * probabilities[index])).to(u))

    def observe(self, sigma: Float[Tensor, " b"], loss: Float[Tensor, " b"], gather: Gather) -> None:
        levels = self.sigmas.to(sigma.dtype)
        index = torch.searchsorted(levels, gather(sigma).cpu())
        self.update(index, gather(loss).cpu().double())

    def update(self, index: Int[Tensor, " n"], losses: Float64[Tensor, " n"]) -> None:
        """Takes note of losses at levels of the chain, one after another."""
        history = self.losses.shape[1]
        for t, loss in zip(index.tolist(), losses.tolist(), strict=True):
            if self.seen[t] == history:
                self.losses[t] = self.losses[t].roll(-1)
                self.losses[t, -1] = loss
            else:
                self.losses[t, self.seen[t]] = loss
                self.seen[t] += 1

    def tensors(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "seen": self.seen}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.losses, self.seen = tensors["losses"], tensors["seen"]
