"""Everything that changes during training."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from undiffuse.config import Config
from undiffuse.diffusion.sigma_samplers import SigmaSampler
from undiffuse.training.ema import ema_copy
from undiffuse.training.optimizers import build_optimizers
from undiffuse.utils.device import compute_dtype, memory_format
from undiffuse.utils.randomness import derived_seed


@dataclass
class TrainingState:
    """Everything that changes during training, and so everything that a checkpoint holds."""

    network: nn.Module
    ema: nn.Module
    """The exponential moving average of the network's weights, in a network of its own."""
    optimizers: list[Optimizer]
    sigma_sampler: SigmaSampler
    images: int = 0
    """Images seen, over all processes."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""
    skipped: int = 0
    """Batches skipped because the loss or the gradient was not finite."""
    skipped_in_a_row: int = 0


def new_state(config: Config, device: torch.device) -> TrainingState:
    """The state before the first step: the same for the same seed on every device."""
    torch.manual_seed(derived_seed("weights", config.seed))
    network = config.build_network().to(device).to(memory_format=memory_format(device))
    muon_dtype = compute_dtype(device, config.training.precision)
    optimizers = build_optimizers(network, config.optimizer, muon_dtype)
    return TrainingState(network, ema_copy(network), optimizers, config.diffusion.make_sigma_sampler())
