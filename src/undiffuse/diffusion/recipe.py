"""The diffusion part of a recipe in words, and the functions those words stand for."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion import noise, parametrization
from undiffuse.diffusion.noise import Draw
from undiffuse.diffusion.parametrization import Parametrization

LONGEST_CHAIN = 1_000_000


@dataclass(frozen=True)
class DiffusionConfig:
    """What the network predicts, how training draws sigma, and from where to where sampling walks."""

    parametrization: Literal["eps", "x0", "v", "flow", "edm"] = "edm"
    """What the network predicts; see docs of `diffusion.parametrization`."""
    draw: Literal["discrete_uniform", "log_normal", "logit_normal"] = "log_normal"
    """How training draws sigma. discrete_uniform also makes sampling walk the levels of the chain."""
    draw_mean: float = -1.2
    """Mean of ln sigma for log_normal, of logit t for logit_normal."""
    draw_std: float = 1.2
    """Standard deviation of the same."""
    schedule: Literal["linear", "cosine"] = "linear"
    """The chain of noise levels: Ho et al.'s or Improved DDPM's. eps, x0 and v tell the network its index in it."""
    chain_length: int = 1000
    """T, the number of levels in the chain."""
    sigma_data: float = 0.5
    """Standard deviation of the pictures' pixels in [-1, 1], for edm."""
    sigma_min: float = 0.002
    """The last noise level before 0 when sampling off the chain."""
    sigma_max: float = 80.0
    """The noise level at which sampling off the chain starts."""

    def __post_init__(self):
        # The linear schedule's last beta is 20 / T: at 1 and above no chain is left.
        shortest = {"linear": 21, "cosine": 2}[self.schedule]
        if not shortest <= self.chain_length <= LONGEST_CHAIN:
            raise ValueError(
                f"chain_length {self.chain_length} does not fit the {self.schedule} schedule: "
                f"choose between {shortest} and {LONGEST_CHAIN:,}."
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} are no range: "
                "choose 0 < sigma_min < sigma_max."
            )
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data {self.sigma_data} is no standard deviation: choose more than 0.")

    def chain(self) -> Float[Tensor, " T"]:
        """The rising noise levels of the discrete chain."""
        betas = {"linear": noise.linear_betas, "cosine": noise.cosine_betas}[self.schedule](self.chain_length)
        return noise.sigmas_of_betas(betas)

    def coefficients(self) -> Parametrization:
        clock = parametrization.chain_clock(self.chain())
        choices = {
            "eps": parametrization.eps(clock),
            "x0": parametrization.x0(clock),
            "v": parametrization.v(clock),
            "flow": parametrization.flow,
            "edm": parametrization.edm(self.sigma_data),
        }
        return choices[self.parametrization]

    def sigma_draw(self) -> Draw:
        choices = {
            "discrete_uniform": noise.discrete_uniform(self.chain()),
            "log_normal": noise.log_normal(self.draw_mean, self.draw_std),
            "logit_normal": noise.logit_normal(self.draw_mean, self.draw_std),
        }
        return choices[self.draw]

    def grid(self, steps: int) -> Float[Tensor, " n"]:
        """The noise levels of a sampler of `steps` steps.

        Raises:
            ValueError: fewer than one step, or more than the chain is long.
        """
        if self.draw == "discrete_uniform":
            return noise.strided_grid(steps, self.chain())
        return noise.karras_grid(steps, self.sigma_min, self.sigma_max)
