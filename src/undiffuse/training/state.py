"""Everything that changes during training."""

import copy
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from undiffuse.config import Config
from undiffuse.diffusion.sigma_samplers import SigmaSampler
from undiffuse.training.blocks import blocks_of, recompute_activations
from undiffuse.training.ema import ema_copy
from undiffuse.training.optimizers import build_optimizers, optimizer_tensors
from undiffuse.utils.device import compute_dtype, memory_format, read_later
from undiffuse.utils.randomness import derived_seed
from undiffuse.utils.sharding import whole
from undiffuse.utils.world import World


class StepReport:
    """What one training step came to, the same on every process.

    Whoever reads its numbers waits for the step to finish.
    """

    def __init__(self, values: Float[Tensor, " 2"], learning_rate: float):
        """`values` are the loss and the norm of the gradient, on the device."""
        self._values = read_later(values)
        self.learning_rate = learning_rate
        self.not_finite: Bool[Tensor, ""] = ~values.isfinite().all()

    @cached_property
    def _read(self) -> tuple[float, float]:
        loss, gradient_norm = self._values()
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
    skeleton: nn.Module | None = None
    """Of a state that is split over the processes: the network without its weights, on the meta device."""
    call_others: Callable[[str], object] | None = None
    """Makes the other processes take part in gathering what is split: see `rank_0_may_look`."""
    unread: list[StepReport] = field(default_factory=list)
    """The last steps, which the two counts do not have yet: see `settle`."""

    def settle(self, but: int = 0) -> None:
        """Reads the reports of all steps, or of all but the last `but`, and counts the batches that were skipped."""
        while len(self.unread) > but:
            skipped = self.unread.pop(0).skipped
            self.skipped += skipped
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The tensors that a checkpoint holds, by part and name, some of them perhaps split over the processes."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": optimizer_tensors(self.optimizers),
            "sigma_sampler": self.sigma_sampler.tensors(),
            "loss_scale": self.loss_scale.tensors() if self.loss_scale else {},
        }

    def gather(self, part: str) -> Iterator[tuple[str, Tensor]]:
        """On rank 0, the whole tensors of a part, one after another, with their names.

        Raises:
            RuntimeError: they are split, and the other processes do something else now.
        """
        if self.skeleton is not None:
            if self.call_others is None:
                raise RuntimeError("Weights that are sharded can be looked at only in an observer's begin and step.")
            self.call_others(part)
        return self.gather_with_rank_0(part)

    def gather_with_rank_0(self, part: str) -> Iterator[tuple[str, Tensor]]:
        """As `gather`, in the other processes."""
        return ((name, whole(tensor)) for name, tensor in self.parts()[part].items())

    def whole(self, part: Literal["network", "ema"]) -> nn.Module:
        """The network or its EMA, to look at: itself, or on rank 0 a copy with all weights if they are split."""
        module: nn.Module = getattr(self, part)
        if self.skeleton is None:
            return module
        copied = copy.deepcopy(self.skeleton).train(module.training)
        copied.load_state_dict(dict(self.gather(part)), assign=True)
        for name, buffer in module.named_buffers():  # Also those that a checkpoint does not hold.
            owner, _, last = name.rpartition(".")
            copied.get_submodule(owner).register_buffer(last, buffer.clone())
        return copied.requires_grad_(False)


def new_state(config: Config, device: torch.device, world: World | None = None) -> TrainingState:
    """The state before the first step: the same for the same seed on every device. `world` has all processes."""
    torch.manual_seed(derived_seed("weights", config.seed))
    network, skeleton = config.build_network(), None
    if world is not None and world.size > 1 and config.training.shard_weights:
        skeleton, ema = copy.deepcopy(network).to("meta"), ema_copy(network)
        for each in (network, ema):
            world.shard(each, blocks_of(each))
    else:
        network = network.to(device).to(memory_format=memory_format(device))
        ema = ema_copy(network)
    dtype = compute_dtype(device, config.training.precision)
    optimizers = build_optimizers(network, config.optimizer, dtype, world)
    loss_scale = LossScale(device) if dtype == torch.float16 else None
    sigma_sampler = config.diffusion.make_sigma_sampler()
    if config.training.activation_checkpointing:
        recompute_activations(network, device)
    return TrainingState(network, ema, optimizers, sigma_sampler, loss_scale, skeleton=skeleton)


@contextmanager
def rank_0_may_look(state: TrainingState, world: World) -> Generator[None, None, None]:
    """While rank 0 is inside, it may `gather` a state that is split, whenever it likes: the others do so with it."""
    if state.skeleton is None:
        yield
    elif world.is_main:
        state.call_others = world.share
        try:
            yield
        finally:
            state.call_others = None
        world.share("")
    else:
        while part := world.share(""):
            for _ in state.gather_with_rank_0(part):
                pass
        yield
