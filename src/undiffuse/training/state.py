"""Everything that changes during training."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from undiffuse.config import Config
from undiffuse.diffusion.sigma_samplers import SigmaSampler
from undiffuse.training.blocks import recompute_activations
from undiffuse.training.ema import ema_copy
from undiffuse.training.optimizers import build_optimizers
from undiffuse.utils.device import compute_dtype, memory_format
from undiffuse.utils.randomness import derived_seed
from undiffuse.utils.world import World


class StepReport:
    """What one training step came to, the same on every process.

    Its numbers stay on the device until somebody reads them: doing so waits for the step to finish.
    """

    def __init__(self, values: Float[Tensor, " 2"], learning_rate: float):
        self._values = values
        self.learning_rate = learning_rate
        self.not_finite: Bool[Tensor, ""] = ~values.isfinite().all()

    @cached_property
    def _read(self) -> tuple[float, float]:
        loss, gradient_norm = self._values.tolist()
        return loss, gradient_norm

    @property
    def loss(self) -> float:
        """Mean over the global batch, weighted as the sigma sampler asks."""
        return self._read[0]

    @property
    def gradient_norm(self) -> float:
        """Before clipping."""
        return self._read[1]

    @property
    def skipped(self) -> bool:
        """Whether the loss or the gradient was not finite, so that the weights did not move."""
        return not all(map(math.isfinite, self._read))


class LossScale:
    """The factor on the loss that keeps gradients in the range of fp16 (Micikevicius et al. 2018, section 3.2).

    It is halved after a gradient that is not finite, and doubled after so many steps without one, on the device.
    """

    STEPS_TO_DOUBLE = 2000

    def __init__(self, device: torch.device):
        self.value = torch.tensor(2.0**13, device=device)
        self.finite_steps = torch.tensor(0, dtype=torch.int32, device=device)

    def unscale(self, gradients: list[Tensor]) -> None:
        """Divides the gradients by the factor."""
        torch._foreach_mul_(gradients, 1 / self.value)

    def update(self, not_finite: Bool[Tensor, ""]) -> None:
        """Adapts the factor after a step."""
        torch._amp_update_scale_(self.value, self.finite_steps, not_finite.float(), 2.0, 0.5, self.STEPS_TO_DOUBLE)

    def tensors(self) -> dict[str, Tensor]:
        return {"value": self.value, "finite_steps": self.finite_steps}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.value.copy_(tensors["value"])
        self.finite_steps.copy_(tensors["finite_steps"])


@dataclass
class TrainingState:
    """Everything that changes during training, and so everything that a checkpoint holds."""

    network: nn.Module
    ema: nn.Module
    """The exponential moving average of the network's weights, in a network of its own."""
    optimizers: list[Optimizer]
    sigma_sampler: SigmaSampler
    loss_scale: LossScale | None = None
    """For training in fp16."""
    images: int = 0
    """Images seen, over all processes."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""
    skipped: int = 0
    """Batches skipped because the loss or the gradient was not finite."""
    skipped_in_a_row: int = 0
    unread: list[StepReport] = field(default_factory=list)
    """The last steps, which the two counts do not have yet: see `settle`."""

    def settle(self, but: int = 0) -> None:
        """Reads the reports of all steps, or of all but the last `but`, and counts the batches that were skipped."""
        while len(self.unread) > but:
            skipped = self.unread.pop(0).skipped
            self.skipped += skipped
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0


def new_state(config: Config, device: torch.device, world: World | None = None) -> TrainingState:
    """The state before the first step: the same for the same seed on every device. `world` has all processes."""
    torch.manual_seed(derived_seed("weights", config.seed))
    network = config.build_network().to(device).to(memory_format=memory_format(device))
    dtype = compute_dtype(device, config.training.precision)
    optimizers = build_optimizers(network, config.optimizer, dtype, world)
    loss_scale = LossScale(device) if dtype == torch.float16 else None
    ema = ema_copy(network)
    if config.training.activation_checkpointing:
        recompute_activations(network, device)
    return TrainingState(network, ema, optimizers, config.diffusion.make_sigma_sampler(), loss_scale)
