"""The diffusion part of a recipe in words, and the functions those words stand for."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion import loss, noise, parametrization
from undiffuse.diffusion.loss import Loss
from undiffuse.diffusion.parametrization import Parametrization
from undiffuse.diffusion.sigma_samplers import Fixed, LossSecondMomentResampler, SigmaSampler

MAX_TIMESTEPS = 1_000_000


@dataclass(frozen=True)
class DiffusionConfig:
    """What the network predicts, how training draws sigma, and from where to where sampling walks."""

    parametrization: Literal["eps", "x0", "v", "flow", "edm"] = "edm"
    """What the network predicts; see docs of `diffusion.parametrization`."""
    objective: Literal["simple", "hybrid", "vlb"] = "simple"
    """The one loss; with the variance learned beside it (L_hybrid); or the variational bound alone (L_vlb)."""
    weight: Literal["none", "min_snr", "edm"] = "none"
    """Of each noise level in the simple objective: as the parametrization has it, min-SNR's, or EDM's."""
    min_snr_gamma: float = 5.0
    """The signal-to-noise ratio above which min_snr counts noise levels no more."""
    draw: Literal["discrete_uniform", "loss_aware", "log_normal", "logit_normal"] = "log_normal"
    """How training draws sigma: a level of the chain, evenly or where losses are large; or from a continuum."""
    draw_mean: float = -1.2
    """Mean of ln sigma for log_normal, of logit t for logit_normal."""
    draw_std: float = 1.2
    """Standard deviation of the same."""
    schedule: Literal["linear", "cosine"] = "linear"
    """The chain of noise levels: Ho et al.'s or Improved DDPM's. eps, x0 and v tell the network its index in it."""
    num_timesteps: int = 1000
    """T, the number of levels in the chain."""
    sigma_data: float = 0.5
    """Standard deviation of the images' pixels in [-1, 1], for edm."""
    sigma_min: float = 0.002
    """The last noise level before 0 when sampling a model that knows no chain."""
    sigma_max: float = 80.0
    """The noise level at which sampling such a model starts; a chain's noisier levels take one step down to it."""

    def __post_init__(self):
        # The linear schedule's last beta is 20 / T: at 1 and above no chain is left.
        shortest = {"linear": 21, "cosine": 2}[self.schedule]
        if not shortest <= self.num_timesteps <= MAX_TIMESTEPS:
            raise ValueError(
                f"num_timesteps {self.num_timesteps} does not fit the {self.schedule} schedule: "
                f"choose between {shortest} and {MAX_TIMESTEPS:,}."
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} are no range: "
                "choose 0 < sigma_min < sigma_max."
            )
        if self.learned_variance and not self.is_discrete:
            raise ValueError(
                f"objective {self.objective} learns the variance of the chain's steps, which draw {self.draw} does not "
                "visit: choose draw discrete_uniform or loss_aware."
            )
        if self.weight != "none" and self.objective != "simple":
            raise ValueError(f"weight {self.weight} has no place in objective {self.objective}: choose weight none.")
        if self.weight == self.parametrization == "edm":
            raise ValueError("weight edm is what parametrization edm has already: choose weight none.")
        if not self.min_snr_gamma > 0:
            raise ValueError(f"min_snr_gamma {self.min_snr_gamma} is out of range: give more than 0.")
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data {self.sigma_data} is no standard deviation: choose more than 0.")

    @property
    def is_discrete(self) -> bool:
        """Whether the model knows the levels of the chain, rather than a continuum."""
        return self.draw in ("discrete_uniform", "loss_aware")

    @property
    def learned_variance(self) -> bool:
        return self.objective != "simple"

    def chain(self) -> Float[Tensor, " T"]:
        """The rising noise levels of the discrete chain."""
        betas = {"linear": noise.linear_betas, "cosine": noise.cosine_betas}[self.schedule](self.num_timesteps)
        return noise.sigmas_of_betas(betas)

    def coefficients(self) -> Parametrization:
        clock = parametrization.discrete_index(self.chain())
        choices = {
            "eps": parametrization.eps(clock),
            "x0": parametrization.x0(clock),
            "v": parametrization.v(clock),
            "flow": parametrization.flow,
            "edm": parametrization.edm(self.sigma_data),
        }
        return choices[self.parametrization]

    def loss(self) -> Loss:
        """The objective as a function of network, x0, eps, sigma and label."""
        weights = {"none": None, "min_snr": loss.min_snr(self.min_snr_gamma), "edm": loss.edm_weight(self.sigma_data)}
        coefficients, chain = self.coefficients(), self.chain()
        choices = {
            "simple": partial(loss.denoising_loss, parametrization=coefficients, weight=weights[self.weight]),
            "hybrid": partial(loss.hybrid_loss, parametrization=coefficients, chain=chain),
            "vlb": partial(loss.vlb_loss, parametrization=coefficients, chain=chain),
        }
        return choices[self.objective]

    def draws(self) -> SigmaSampler:
        choices = {
            "discrete_uniform": lambda: Fixed(noise.discrete_uniform(self.chain())),
            "loss_aware": lambda: LossSecondMomentResampler(self.chain()),
            "log_normal": lambda: Fixed(noise.log_normal(self.draw_mean, self.draw_std)),
            "logit_normal": lambda: Fixed(noise.logit_normal(self.draw_mean, self.draw_std)),
        }
        return choices[self.draw]()

    def sigma_range(self) -> tuple[float, float]:
        """The least and the most noise that the model knows."""
        if not self.is_discrete:
            return self.sigma_min, self.sigma_max
        chain = self.chain()
        return float(chain[0]), float(chain[-1])

    def discrete_sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """`steps` levels of the chain, evenly spaced in its index and always with the noisiest, then 0.

        Raises:
            ValueError: fewer than one step, or more than the chain is long; or the model knows no chain.
        """
        if not self.is_discrete:
            raise ValueError("This model was not trained on a chain of noise levels: choose grid karras or log_snr.")
        if not 1 <= steps <= self.num_timesteps:
            raise ValueError(f"{steps} steps do not fit this model's chain: choose between 1 and {self.num_timesteps}.")
        # One step starts at the noisiest level, where the released code's stride would begin at the least noisy.
        indices = noise.strided(self.num_timesteps, str(steps)) if steps > 1 else [self.num_timesteps - 1]
        return noise.discrete_sigmas(indices, self.chain())

    def karras_sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """See `noise.karras_sigmas`, over all noise levels that the model knows.

        A cosine chain's reach 2e4 and beyond, where one step loses nothing and rho would spend half of them: from the
        noisiest level the grid goes to `sigma_max` at once.
        """
        low, high = self.sigma_range()
        if steps == 1 or high <= self.sigma_max:
            return noise.karras_sigmas(steps, low, high)
        rest = noise.karras_sigmas(steps - 1, low, self.sigma_max)
        return torch.cat([rest.new_tensor([high]), rest])

    def log_snr_sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """See `noise.log_snr_sigmas`, over all noise levels that the model knows."""
        return noise.log_snr_sigmas(steps, *self.sigma_range())
