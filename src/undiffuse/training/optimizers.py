"""Muon for the weight matrices, AdamW for the rest, and the learning rate over the budget."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from undiffuse.config import OptimizerConfig


class Muon(Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al. 2024, "Muon").

    A convolution's weight is taken as the matrix (channels out, channels in x kernel). The update's scale is that of
    Liu et al. 2025, Eq. 4 ("Muon is scalable"), so one learning rate serves Muon and AdamW.

    torch.optim.Muon takes two-dimensional parameters only, one at a time, and always computes in bf16, which a CPU
    without bf16 emulates slowly (`undiffuse doctor` measures it). Here equal shapes share one
    batched product, in `dtype`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # ty: ignore[incompatible-method-override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape[0], p[0].numel()].append(p)
            for shape, params in by_shape.items():
                self._update(params, shape, group)

    def _update(self, params: list[Tensor], shape: tuple[int, int], group: dict) -> None:
        beta = group["momentum"]
        updates = []
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
            momentum, gradient = self.state[p]["momentum"], p.grad
            assert gradient is not None
            momentum.lerp_(gradient, 1 - beta)
            updates.append(gradient.lerp(momentum, beta).reshape(shape))  # Nesterov's look ahead.
        orthogonal = orthogonalized(torch.stack(updates).to(self.dtype))
        lr, scale = group["lr"], 0.2 * max(shape) ** 0.5
        for p, update in zip(params, orthogonal, strict=True):
            p.mul_(1 - lr * group["weight_decay"]).add_(update.view(p.shape).to(p.dtype), alpha=-lr * scale)


def orthogonalized(matrices: Float[Tensor, "n rows cols"], iterations: int = 5) -> Float[Tensor, "n rows cols"]:
    """Roughly U V^T of each matrix's singular value decomposition U S V^T, by a Newton-Schulz iteration.

    The quintic's coefficients are Jordan et al.'s: steep at 0, so that after five iterations every singular value of
    a usual gradient lies within about 0.7 to 1.2; exactness is not what makes Muon work.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    X = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    wide = X if X.shape[1] <= X.shape[2] else X.mT
    for _ in range(iterations):
        A = wide @ wide.mT
        wide = a * wide + (b * A + c * A @ A) @ wide
    return wide if X.shape[1] <= X.shape[2] else wide.mT


def build_optimizers(network: nn.Module, config: OptimizerConfig, muon_dtype: torch.dtype) -> list[Optimizer]:
    """AdamW, or Muon for every weight matrix and convolution between input and output, and AdamW for the rest."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if config.muon and p.ndim >= 2 and not _at_the_edge(name)]
    of_muon = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in of_muon]
    lr, weight_decay = config.learning_rate, config.weight_decay
    optimizers: list[Optimizer] = [AdamW(rest, lr=lr, betas=config.betas, weight_decay=weight_decay)] if rest else []
    if matrices:
        optimizers.append(Muon(matrices, lr=lr, weight_decay=weight_decay, dtype=muon_dtype))
    return optimizers


def _at_the_edge(name: str) -> bool:
    # Pixels in, pixels out and labels are no hidden matrices; Jordan et al. leave these to AdamW.
    return name.startswith(("input.", "output.", "embed_label."))


def learning_rate_factor(images: int, progress: float, config: OptimizerConfig) -> float:
    """What the learning rate is multiplied by after `images` images, `progress` in [0, 1] of the budget being spent.

    It rises linearly over `warmup_images` and falls linearly to 0 over the last `decay_fraction` of the budget.
    """
    warmup = min(1.0, (images + 1) / config.warmup_images) if config.warmup_images else 1.0
    decay = min(1.0, (1 - progress) / config.decay_fraction) if config.decay_fraction else 1.0
    return warmup * max(decay, 0.0)


def set_learning_rate(optimizers: list[Optimizer], learning_rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' memory as named tensors, for a checkpoint."""
    return {
        f"{i}.{index}.{name}": value
        for i, optimizer in enumerate(optimizers)
        for index, memory in optimizer.state_dict()["state"].items()
        for name, value in memory.items()
    }


def load_optimizer_tensors(optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Gives optimizers that were just built the memory that `optimizer_tensors` took."""
    for i, optimizer in enumerate(optimizers):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        memory: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for key, value in tensors.items():
            of, index, name = key.split(".")
            if int(of) == i:
                # In its parameter's memory format: the same operations in the same order as without a restart.
                like = params[int(index)]
                same_shape = value.shape == like.shape
                memory[int(index)][name] = torch.empty_like(like).copy_(value) if same_shape else value
        optimizer.load_state_dict({"state": dict(memory), "param_groups": optimizer.state_dict()["param_groups"]})
