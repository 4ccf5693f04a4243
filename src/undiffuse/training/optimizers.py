"""Muon for the weight matrices, AdamW for the rest, and the learning rate over the budget."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from undiffuse.config import OptimizerConfig
from undiffuse.utils.sharding import is_sharded, local, shard_like, whole_of
from undiffuse.utils.terminal import log
from undiffuse.utils.world import World

ELEMENTS_AT_ONCE = 2**27
"""Of sharded matrices, as many as Muon has whole at once in each process: 512 MiB in fp32, and as much for results."""


@runtime_checkable
class KnowsItsEdges(Protocol):
    """A network that can be trained by Muon."""

    def edge_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that read pixels or labels or write pixels. Jordan et al. leave these to AdamW."""
        ...


class Muon(Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al. 2024, "Muon").

    The weight of a convolution counts as the matrix (channels out, channels in x kernel). The update is scaled as in
    Liu et al. 2025, Eq. 4 ("Muon is scalable"), so that Muon and AdamW share one learning rate.

    torch.optim.Muon takes only two-dimensional parameters, one at a time, and always computes in bf16, which a CPU
    without bf16 emulates slowly (`undiffuse doctor` measures it). Here parameters of equal shape share one batched
    product, computed in `dtype`, and the processes of `world` share the products.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        world: World | None = None,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        self.world = world or World.alone(torch.device("cpu"))
        self.found_inf: Tensor | None = None
        """Where it is 1, a step changes nothing: see `step_unless`."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # ty: ignore[incompatible-method-override]
        for group in self.param_groups:
            for params in _rounds([p for p in group["params"] if p.grad is not None]):
                directions = self._orthogonalized([self._direction(p, group["momentum"]) for p in params])
                for p, direction in zip(params, directions, strict=True):
                    weight, update = local(p), local(shard_like(direction.view(p.shape), p))
                    decayed = weight * (1 - group["lr"] * group["weight_decay"])
                    scale = 0.2 * max(direction.shape) ** 0.5
                    moved = decayed.add_(update.to(p.dtype), alpha=-group["lr"] * scale)
                    _set(weight, moved, self.found_inf)

    def _direction(self, p: Tensor, beta: float) -> Float[Tensor, "rows cols"]:
        """Nesterov's look-ahead along the momentum, as a whole matrix in the precision of the iteration."""
        if "momentum" not in self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        assert p.grad is not None
        momentum, gradient = local(self.state[p]["momentum"]), local(p.grad)
        _set(momentum, momentum.lerp(gradient, 1 - beta), self.found_inf)
        return whole_of(gradient.lerp(momentum, beta).to(self.dtype), p).reshape(p.shape[0], -1)

    def _orthogonalized(self, matrices: list[Tensor]) -> list[Tensor]:
        """Each matrix orthogonalized. Processes divide them among themselves: all have the same gradients."""
        size, rank = self.world.size, self.world.rank
        owners = _divided([m.shape[0] * m.shape[1] * min(m.shape) for m in matrices], size)
        mine = [i for i in range(len(matrices)) if owners[i] == rank]
        done = dict(zip(mine, _by_shape([matrices[i] for i in mine]), strict=True))
        if size == 1:
            return [done[i] for i in range(len(matrices))]
        lengths = [sum(m.numel() for m, owner in zip(matrices, owners, strict=True) if owner == r) for r in range(size)]
        sent = torch.zeros(max(lengths), dtype=self.dtype, device=self.world.device)
        if mine:
            sent[: lengths[rank]] = torch.cat([done[i].flatten() for i in mine])
        gathered = self.world.gather(sent.view(torch.uint8)[None]).view(self.dtype)  # gloo knows no bf16.
        offsets, found = [0] * size, []
        for matrix, owner in zip(matrices, owners, strict=True):
            start = offsets[owner]
            offsets[owner] += matrix.numel()
            found.append(gathered[owner, start : offsets[owner]].view(matrix.shape))
        return found


def _rounds(params: list[Tensor]) -> list[list[Tensor]]:
    """All at once; those that are split over processes in rounds, since in each of them the matrices are whole."""
    rounds: list[list[Tensor]] = [[]]
    elements = 0
    for p in params:
        elements += p.numel()
        if is_sharded(p) and elements > ELEMENTS_AT_ONCE and rounds[-1]:
            rounds.append([])
            elements = p.numel()
        rounds[-1].append(p)
    return rounds


def _divided(costs: list[int], processes: int) -> list[int]:
    """Which process does each of the tasks, so that all take about as long: the costliest first, to the idlest."""
    owners, load = [0] * len(costs), [0] * processes
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[i] = load.index(min(load))
        load[owners[i]] += costs[i]
    return owners


def _by_shape(matrices: list[Tensor]) -> list[Tensor]:
    """Each matrix orthogonalized; those of equal shape in one batched product."""
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        by_shape[tuple(matrix.shape)].append(i)
    found: dict[int, Tensor] = {}
    for indices in by_shape.values():
        found |= zip(indices, orthogonalized(torch.stack([matrices[i] for i in indices])), strict=True)
    return [found[i] for i in range(len(matrices))]


def _set(tensor: Tensor, value: Tensor, unless: Tensor | None) -> None:
    tensor.copy_(value if unless is None else torch.where(unless > 0, tensor, value))


def orthogonalized(matrices: Float[Tensor, "n rows cols"], iterations: int = 5) -> Float[Tensor, "n rows cols"]:
    """Approximately U V^T for each matrix with singular value decomposition U S V^T, by a Newton-Schulz iteration.

    The coefficients of the quintic are Jordan et al.'s: steep at 0, so that five iterations bring every singular value
    of a typical gradient to about 0.7 to 1.2. Muon does not need it more exactly.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    X = matrices / (torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True) + 1e-7)
    wide = X if X.shape[1] <= X.shape[2] else X.mT
    for _ in range(iterations):
        A = wide @ wide.mT
        wide = a * wide + (b * A + c * A @ A) @ wide
    return wide if X.shape[1] <= X.shape[2] else wide.mT


def build_optimizers(
    network: nn.Module, config: OptimizerConfig, muon_dtype: torch.dtype, world: World | None = None
) -> list[Optimizer]:
    """AdamW for all parameters, or with `config.muon` Muon for the hidden matrices and AdamW for the rest."""
    trained = [p for p in network.parameters() if p.requires_grad]
    matrices = _hidden_matrices(network, trained) if config.muon else []
    for_muon = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in for_muon]
    lr, weight_decay = config.learning_rate, config.weight_decay
    optimizers: list[Optimizer] = (
        [AdamW(rest, lr=lr, betas=config.betas, weight_decay=weight_decay, fused=True)] if rest else []
    )
    if matrices:
        optimizers.append(Muon(matrices, lr=lr, weight_decay=weight_decay, dtype=muon_dtype, world=world))
    return optimizers


def _hidden_matrices(network: nn.Module, trained: list[nn.Parameter]) -> list[nn.Parameter]:
    """The weight matrices and convolutions between input and output."""
    if not isinstance(network, KnowsItsEdges):
        log.info(f"{type(network).__name__} has no edge_parameters(), so AdamW alone trains it, without Muon.")
        return []
    edges = {id(p) for p in network.edge_parameters()}
    return [p for p in trained if p.ndim >= 2 and id(p) not in edges]


def learning_rate_factor(images: int, progress: float, config: OptimizerConfig) -> float:
    """The factor on the learning rate after `images` images, when the fraction `progress` of the budget is spent.

    It rises linearly over `warmup_images` and falls linearly to 0 over the last `decay_fraction` of the budget.
    """
    warmup = min(1.0, (images + 1) / config.warmup_images) if config.warmup_images else 1.0
    decay = min(1.0, (1 - progress) / config.decay_fraction) if config.decay_fraction else 1.0
    return warmup * max(decay, 0.0)


def set_learning_rate(optimizers: list[Optimizer], learning_rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate


def step_unless(flag: Bool[Tensor, ""], optimizer: Optimizer) -> None:
    """Takes a step that changes nothing where the flag, which stays on the device, is true."""
    optimizer.found_inf = flag.float()  # ty: ignore[missing-attribute]  As torch's GradScaler tells fused optimizers.
    optimizer.step()


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state as named tensors, for a checkpoint."""
    return {
        f"{i}.{index}.{name}": value
        for i, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimizer_tensors(optimizers: list[Optimizer], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Restores the state that `optimizer_tensors` returned, with whole tensors, in newly built optimizers."""
    params = [[p for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers]
    states: list[dict[int, dict[str, Tensor]]] = [defaultdict(dict) for _ in optimizers]
    for key, value in tensors:
        owner, index, name = key.split(".")
        like = params[int(owner)][int(index)]
        if value.shape == like.shape:
            # In its parameter's memory format: the same operations in the same order as without a restart.
            value = torch.empty_like(like).copy_(shard_like(value, like))
        states[int(owner)][int(index)][name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": dict(state), "param_groups": optimizer.state_dict()["param_groups"]})
