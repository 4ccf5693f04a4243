"""The diffusion part of a recipe by name, and the functions that the names stand for."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from undiffuse.diffusion import consistency, noise
from undiffuse.diffusion.loss import OBJECTIVES, WEIGHTS, Loss
from undiffuse.diffusion.noise import SCHEDULES
from undiffuse.diffusion.parametrization import PARAMETRIZATIONS, Parametrization
from undiffuse.diffusion.sigma_samplers import SIGMA_SAMPLERS, SigmaSampler
from undiffuse.utils.validation import STRICT

MAX_TIMESTEPS = 1_000_000

# The names are those of the tables' rows; a type checker cannot know them.
ParametrizationName = Literal[tuple(PARAMETRIZATIONS)]  # ty: ignore[invalid-type-form]
ObjectiveName = Literal[tuple(OBJECTIVES)]  # ty: ignore[invalid-type-form]
WeightName = Literal[tuple(WEIGHTS)]  # ty: ignore[invalid-type-form]
SigmaSamplerName = Literal[tuple(SIGMA_SAMPLERS)]  # ty: ignore[invalid-type-form]
ScheduleName = Literal[tuple(SCHEDULES)]  # ty: ignore[invalid-type-form]


@dataclass(frozen=True, config=STRICT)
class DiffusionConfig:
    """What the network predicts, which noise levels training samples, and the range of noise levels in sampling."""

    parametrization: ParametrizationName = "edm"
    """What the network predicts: a row of `PARAMETRIZATIONS`."""
    objective: ObjectiveName = "simple"
    """The loss: simple; hybrid, which also learns the variance; vlb, the VLB only; or consistency, which `undiffuse
    distill` sets. See `OBJECTIVES`."""
    consistency_q: Annotated[float, Field(gt=1)] = 2.0
    """For consistency: the two noise levels of a pair are q times closer to each other in each stage."""
    consistency_stages: Annotated[int, Field(ge=1, le=16)] = 8
    """For consistency: how many stages the budget has, all equally long."""
    weight: WeightName = "none"
    """Weight of each noise level in the simple objective: none for the parametrization's own, min_snr or edm."""
    min_snr_gamma: Annotated[float, Field(gt=0)] = 5.0
    """For weight min_snr: the signal-to-noise ratio at which the weight is capped."""
    sigma_sampler: SigmaSamplerName = "log_normal"
    """How training samples sigma: timesteps of the discrete schedule, or a continuum. See `SIGMA_SAMPLERS`."""
    sigma_mean: float = -1.2
    """Mean of ln sigma for log_normal, of logit t for logit_normal."""
    sigma_std: float = 1.2
    """Standard deviation of the same."""
    schedule: ScheduleName = "linear"
    """The discrete schedule: DDPM's or Improved DDPM's. eps, x0 and v condition the network on its timesteps."""
    num_timesteps: int = 1000
    """T, the length of the discrete schedule."""
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    """Standard deviation of the images' pixels in [-1, 1], for edm."""
    sigma_min: float = 0.002
    """The last noise level before 0 when sampling a model of a continuum."""
    sigma_max: float = 80.0
    """The first noise level when sampling a model of a continuum. A discrete schedule that starts above it takes one
    step down to it."""

    def __post_init__(self) -> None:
        least = SCHEDULES[self.schedule].min_timesteps
        if not least <= self.num_timesteps <= MAX_TIMESTEPS:
            raise ValueError(
                f"num_timesteps {self.num_timesteps} does not fit the {self.schedule} schedule: "
                f"choose between {least} and {MAX_TIMESTEPS:,}."
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} are not a range: "
                "choose 0 < sigma_min < sigma_max."
            )
        if self.learned_variance and not self.is_discrete:
            discrete = [name for name, row in SIGMA_SAMPLERS.items() if row.is_discrete]
            raise ValueError(
                f"objective {self.objective} learns the variance between timesteps, which sigma_sampler "
                f"{self.sigma_sampler} does not sample: choose sigma_sampler {' or '.join(discrete)}."
            )
        if self.weight != "none" and self.objective != "simple":
            raise ValueError(f"weight {self.weight} does not apply to objective {self.objective}: choose weight none.")
        if self.weight == self.parametrization == "edm":
            raise ValueError("weight edm is already part of parametrization edm: choose weight none.")

    @property
    def is_discrete(self) -> bool:
        """Whether the model was trained on the levels of the discrete schedule only, rather than on a continuum."""
        return SIGMA_SAMPLERS[self.sigma_sampler].is_discrete

    @property
    def learned_variance(self) -> bool:
        """Whether the network predicts the variance too."""
        return OBJECTIVES[self.objective].learns_variance

    def discrete_schedule(self) -> Float[Tensor, " T"]:
        """The rising sigmas of the discrete schedule, float64."""
        return noise.sigmas_of_betas(SCHEDULES[self.schedule].betas(self.num_timesteps))

    def make_parametrization(self) -> Parametrization:
        """The parametrization as a function of sigma."""
        return PARAMETRIZATIONS[self.parametrization].make(self.discrete_schedule(), self.sigma_data)

    @property
    def jumps(self) -> bool:
        """Whether the network learns to jump to a clean image at once, which the sampler `consistency` is for."""
        return OBJECTIVES[self.objective].jumps

    def stage(self, progress: float) -> int:
        """Which stage of the objective this fraction of the budget lies in; only consistency has more than one."""
        return consistency.stage_at(progress, self.consistency_stages) if self.jumps else 0

    def make_loss(self, stage: int | None = None) -> Loss:
        """The objective as a function of network, x0, eps, sigma and label, in its last stage unless one is given."""
        stage = self.stage(1.0) if stage is None else stage
        return OBJECTIVES[self.objective].make(
            self.make_parametrization(),
            WEIGHTS[self.weight](self.min_snr_gamma, self.sigma_data),
            self.discrete_schedule(),
            partial(consistency.lower_sigma, q=self.consistency_q, stage=stage, sigma_data=self.sigma_data),
        )

    def make_sigma_sampler(self) -> SigmaSampler:
        """The noise-level sampler, in its state before training."""
        return SIGMA_SAMPLERS[self.sigma_sampler].make(self.discrete_schedule(), self.sigma_mean, self.sigma_std)

    def sigma_range(self) -> tuple[float, float]:
        """The lowest and highest sigma used in sampling: the discrete schedule's ends, or sigma_min and sigma_max."""
        if not self.is_discrete:
            return self.sigma_min, self.sigma_max
        sigmas = self.discrete_schedule()
        return float(sigmas[0]), float(sigmas[-1])

    def discrete_sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """`steps` levels of the discrete schedule, evenly spaced in t and always with the noisiest, then 0.

        Raises:
            ValueError: fewer than 1 step or more than `num_timesteps`; or the model has no discrete schedule.
        """
        if not self.is_discrete:
            raise ValueError("This model was not trained on a discrete schedule: choose sigmas karras or log_snr.")
        if not 1 <= steps <= self.num_timesteps:
            raise ValueError(
                f"{steps} steps do not fit this model's discrete schedule: choose between 1 and {self.num_timesteps}."
            )
        # One step starts at the noisiest level, where the released code's stride would start at the least noisy.
        indices = noise.strided(self.num_timesteps, str(steps)) if steps > 1 else [self.num_timesteps - 1]
        return noise.discrete_sigmas(indices, self.discrete_schedule())

    def karras_sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """See `noise.karras_sigmas`, over the whole range of the model.

        A cosine schedule goes up to sigma 2e4. Karras spacing would spend half of the steps above `sigma_max`, where a
        single step is as good, so the first step goes from the noisiest level to `sigma_max` at once.
        """
        low, high = self.sigma_range()
        if steps == 1 or high <= self.sigma_max:
            return noise.karras_sigmas(steps, low, high)
        rest = noise.karras_sigmas(steps - 1, low, self.sigma_max)
        return torch.cat([rest.new_tensor([high]), rest])

    def consistency_sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """See `consistency.sampling_sigmas`, from the model's highest level or, where that is higher, `sigma_max`."""
        return consistency.sampling_sigmas(steps, min(self.sigma_range()[1], self.sigma_max), self.sigma_data)

    def log_snr_sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """See `noise.log_snr_sigmas`, over the whole range of the model."""
        return noise.log_snr_sigmas(steps, *self.sigma_range())


SIGMAS: dict[str, Callable[[DiffusionConfig, int], Tensor]] = {
    "discrete": DiffusionConfig.discrete_sigmas,
    "karras": DiffusionConfig.karras_sigmas,
    "log_snr": DiffusionConfig.log_snr_sigmas,
    "consistency": DiffusionConfig.consistency_sigmas,
}
"""The sigmas of sampling by the name used in config.json: (diffusion, steps) -> falling sigmas, ending in 0."""
