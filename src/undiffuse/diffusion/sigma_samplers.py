"""Noise-level samplers: the sigma of each training image, with the weight that keeps the loss unbiased."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from undiffuse.diffusion.noise import Quantile, discrete_uniform, log_normal, logit_normal

Gather = Callable[[Tensor], Tensor]
"""Joins a tensor of each process along its first dimension, so that all processes learn the same."""


class SigmaSample(NamedTuple):
    sigma: Tensor
    """(b,)"""
    weight: Tensor
    """The weight of each image's loss, (b,): 1 / (T p), for a level of T that is sampled with probability p."""


@runtime_checkable
class SigmaSampler(Protocol):
    """Samples sigma for training, perhaps depending on the losses that it has seen."""

    def sample(self, u: Float[Tensor, " b"]) -> SigmaSample:
        """The sigmas at the uniform quantiles u in [0, 1), one per image."""
        ...

    def observe(self, sigma: Float[Tensor, " b"], loss: Float[Tensor, " b"], gather: Gather) -> None:
        """Records this process's losses, before weighting."""
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

    def observe(self, sigma: Float[Tensor, " b"], loss: Float[Tensor, " b"], gather: Gather) -> None:
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

    def probabilities(self) -> Float64[Tensor, " T"]:
        """The probability of each level."""
        num_timesteps, history = self.losses.shape
        if bool((self.seen < history).any()):
            return torch.full((num_timesteps,), 1 / num_timesteps, dtype=torch.float64)
        rms = self.losses.square().mean(dim=1).sqrt()
        return (1 - self.uniform_prob) * rms / rms.sum() + self.uniform_prob / num_timesteps

    def sample(self, u: Float[Tensor, " b"]) -> SigmaSample:
        probabilities = self.probabilities()
        upper_ends = probabilities.cumsum(dim=0)
        index = torch.searchsorted(upper_ends, u.double() * upper_ends[-1], right=True).clamp(max=len(upper_ends) - 1)
        return SigmaSample(self.sigmas[index].to(u), (1 / (len(probabilities) * probabilities[index])).to(u))

    def observe(self, sigma: Float[Tensor, " b"], loss: Float[Tensor, " b"], gather: Gather) -> None:
        levels = self.sigmas.to(sigma.dtype)
        index = torch.searchsorted(levels, gather(sigma).cpu())
        self.update(index, gather(loss).cpu().double())

    def update(self, index: Int[Tensor, " n"], losses: Float64[Tensor, " n"]) -> None:
        """Records losses at indices of the discrete schedule, in order."""
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
        return SigmaSample(sigma, (weights / weights.mean())[self._bin(sigma)].to(u))

    def observe(self, sigma: Float[Tensor, " b"], loss: Float[Tensor, " b"], gather: Gather) -> None:
        for i, value in zip(self._bin(gather(sigma).cpu()).tolist(), gather(loss).cpu().tolist(), strict=True):
            self.seen[i] += 1
            self.means[i] += (value - self.means[i]) / min(int(self.seen[i]), self.memory)

    def tensors(self) -> dict[str, Tensor]:
        return {"means": self.means, "seen": self.seen}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.means, self.seen = tensors["means"], tensors["seen"]

    def _bin(self, sigma: Tensor) -> Tensor:
        return torch.searchsorted(self.edges, sigma.double())


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
