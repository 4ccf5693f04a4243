"""Noise-level samplers: the sigma of each training image, with the weight that keeps the loss unbiased."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from undiffuse.diffusion.noise import Quantile, beside, discrete_uniform, log_normal, logit_normal
from undiffuse.utils.device import upload

Gather = Callable[[Tensor], Tensor]
"""Joins a tensor of each process along its first dimension, so that all processes learn the same."""


class SigmaSample(NamedTuple):
    sigma: Tensor
    """(b,)"""
    weight: Tensor
    """The weight of each image's loss, (b,): 1 / (T p), for a level of T that is sampled with probability p."""


@runtime_checkable
class SigmaSampler(Protocol):
    """Samples sigma for training, perhaps depending on the losses that it has seen.

    What it learns stays on the device of the losses, so that a GPU is never waited for.
    """

    def sample(self, u: Float[Tensor, " b"]) -> SigmaSample:
        """The sigmas at the uniform quantiles u in [0, 1) on the CPU, one per image; they may be on another device."""
        ...

    def observe(
        self,
        sigma: Float[Tensor, " b"],
        loss: Float[Tensor, " b"],
        gather: Gather,
        unless: Bool[Tensor, ""] | None = None,
    ) -> None:
        """Records this process's losses, before weighting; where `unless` is true, nothing changes."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its state for a checkpoint: everything that `observe` changes."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores a state that `tensors` returned."""
        ...


class FixedDistribution:
    """The same distribution throughout training, every loss with weight 1."""

    def __init__(self, quantile: Quantile):
        self.quantile = quantile

    def sample(self, u: Float[Tensor, " b"]) -> SigmaSample:
        return SigmaSample(self.quantile(u), torch.ones_like(u))

    def observe(self, sigma: Tensor, loss: Tensor, gather: Gather, unless: Tensor | None = None) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        pass


class LossSecondMomentResampler:
    """Levels of the discrete schedule in proportion to the root mean square of their last losses.

    Nichol & Dhariwal 2021, section 3.3. Uniform until each level has been seen `history` times; after that, still
    uniform with probability `uniform_prob`.
    """

    def __init__(self, sigmas: Float[Tensor, " T"], history: int = 10, uniform_prob: float = 0.001):
        self.sigmas, self.uniform_prob = sigmas.double().cpu(), uniform_prob
        self.losses = torch.zeros(len(sigmas), history, dtype=torch.float64)
        """The last losses of each level, oldest first."""
        self.seen = torch.zeros(len(sigmas), dtype=torch.int64)
        """How many of these have been recorded."""

    def probabilities(self) -> Float[Tensor, " T"]:
        """The probability of each level."""
        num_timesteps, history = self.losses.shape
        rms = self.losses.square().mean(dim=1).sqrt()
        learned = (1 - self.uniform_prob) * rms / rms.sum() + self.uniform_prob / num_timesteps
        return torch.where((self.seen < history).any(), 1 / num_timesteps, learned)

    def sample(self, u: Float[Tensor, " b"]) -> SigmaSample:
        probabilities = self.probabilities()
        upper_ends = probabilities.cumsum(dim=0)
        quantiles = upload(u, self.losses.device)
        at = quantiles.to(upper_ends.dtype) * upper_ends[-1]
        index = torch.searchsorted(upper_ends, at, right=True).clamp(max=len(upper_ends) - 1)
        weight = 1 / (len(probabilities) * probabilities[index])
        return SigmaSample(beside(self.sigmas, quantiles)[index], weight.to(quantiles.dtype))

    def observe(self, sigma: Tensor, loss: Tensor, gather: Gather, unless: Tensor | None = None) -> None:
        index = torch.searchsorted(beside(self.sigmas, sigma), gather(sigma))
        self.update(index, gather(loss), unless)

    def update(self, index: Int[Tensor, " n"], losses: Float[Tensor, " n"], unless: Tensor | None = None) -> None:
        """Records losses at indices of the discrete schedule, in order."""
        self._follow(losses.device)
        num_timesteps, history = self.losses.shape
        seen = self.seen + torch.zeros_like(self.seen).index_add(0, index, torch.ones_like(index))
        dropped = (seen - history).clamp(min=0)
        """How many of each level's losses, counted from the oldest, there is no room for."""
        ordered, order = index.sort(stable=True)
        among_its_level = torch.arange(len(index), device=index.device) - torch.searchsorted(ordered, ordered)
        place = self.seen[ordered] + among_its_level - dropped[ordered]

        kept = torch.arange(history, device=index.device) + dropped[:, None]
        rows = torch.where(kept < self.seen[:, None], self.losses.gather(1, kept.clamp(max=history - 1)), 0.0)
        rows = torch.cat([rows, rows.new_zeros(num_timesteps, 1)], dim=1)  # The last column is for what has no room.
        rows[ordered, torch.where(place < 0, history, place)] = losses[order].to(rows.dtype)
        self.losses = _unless(unless, rows[:, :history].contiguous(), self.losses)
        self.seen = _unless(unless, seen.clamp(max=history), self.seen)

    def _follow(self, device: torch.device) -> None:
        """Moves what was learned to where the losses are."""
        self.losses, self.seen = upload(self.losses, device), upload(self.seen, device)

    def tensors(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "seen": self.seen}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.losses, self.seen = tensors["losses"], tensors["seen"]


class LossBalanced:
    """A distribution whose noise levels all count alike, however large their losses: each is divided by its mean loss.

    That is what a learned log-variance u of each level, with loss / e^u + u, comes to at its optimum (Karras et al.
    2024, Eq. 21); here e^u is a running mean, in `bins` equally likely ranges of sigma. The weights have mean 1.
    """

    def __init__(self, quantile: Quantile, bins: int = 32, memory: int = 200):
        self.quantile, self.memory = quantile, memory
        self.edges = quantile(torch.arange(1, bins, dtype=torch.float64) / bins)
        self.means = torch.ones(bins, dtype=torch.float64)
        """The mean loss of each range, over about the last `memory` images."""
        self.seen = torch.zeros(bins, dtype=torch.int64)

    def sample(self, u: Float[Tensor, " b"]) -> SigmaSample:
        sigma = self.quantile(u)
        weights = 1 / self.means
        return SigmaSample(sigma, (weights / weights.mean())[self._bin(sigma)])

    def observe(self, sigma: Tensor, loss: Tensor, gather: Gather, unless: Tensor | None = None) -> None:
        self.means, self.seen = upload(self.means, loss.device), upload(self.seen, loss.device)
        values = gather(loss).to(self.means.dtype)
        in_bin = self._bin(gather(sigma))[:, None] == torch.arange(len(self.means), device=loss.device)
        seen = self.seen + in_bin.cumsum(dim=0)
        # A running mean takes a fraction of each value and of all before it what is left: mean += a (value - mean).
        a = torch.where(in_bin, 1 / seen.clamp(min=1, max=self.memory).to(values.dtype), 0.0)
        left = (1 - a).flip(0).cumprod(dim=0).flip(0)
        left_after = torch.cat([left[1:], torch.ones_like(left[:1])])
        means = self.means * left[0] + (values[:, None] * a * left_after).sum(dim=0)
        self.means, self.seen = _unless(unless, means, self.means), _unless(unless, seen[-1], self.seen)

    def tensors(self) -> dict[str, Tensor]:
        return {"means": self.means, "seen": self.seen}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.means, self.seen = tensors["means"], tensors["seen"]

    def _bin(self, sigma: Tensor) -> Tensor:
        return torch.searchsorted(beside(self.edges, self.means), upload(sigma, self.means.device).to(self.means.dtype))


def _unless(condition: Tensor | None, changed: Tensor, kept: Tensor) -> Tensor:
    return changed if condition is None else torch.where(condition, kept, changed)


@dataclass(frozen=True)
class SigmaSamplerRow:
    make: Callable[[Tensor, float, float], SigmaSampler]
    """(rising sigmas of the discrete schedule, sigma_mean, sigma_std) -> the sampler."""
    is_discrete: bool
    """Whether it samples the levels of the discrete schedule only, rather than a continuum."""
    about: str


SIGMA_SAMPLERS: dict[str, SigmaSamplerRow] = {
    "discrete_uniform": SigmaSamplerRow(
        lambda sigmas, mean, std: FixedDistribution(discrete_uniform(sigmas)), True, "every timestep equally often"
    ),
    "loss_second_moment": SigmaSamplerRow(
        lambda sigmas, mean, std: LossSecondMomentResampler(sigmas), True, "timesteps with large losses more often"
    ),
    "log_normal": SigmaSamplerRow(
        lambda sigmas, mean, std: FixedDistribution(log_normal(mean, std)), False, "EDM's distribution of ln sigma"
    ),
    "log_normal_balanced": SigmaSamplerRow(
        lambda sigmas, mean, std: LossBalanced(log_normal(mean, std)),
        False,
        "EDM's distribution, with weights that make all noise levels count alike",
    ),
    "logit_normal": SigmaSamplerRow(
        lambda sigmas, mean, std: FixedDistribution(logit_normal(mean, std)),
        False,
        "EDM's distribution, of the logit of flow matching's time",
    ),
}
"""Keyed by the name used in config.json."""
