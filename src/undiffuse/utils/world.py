"""One process, or many under torchrun: which one this is, and what all of them agree on."""

import gc
import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

# Before there is a process group: DistributedDataParallel imports it, and a group that exists by then stays in its
# functions' defaults.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from undiffuse.utils.device import choose_device

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among the ones that work together. Only rank 0 decides, writes files and prints."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls, device: torch.device | None = None) -> "World":
        """A single process, on `device` or else on the best device of the machine."""
        return cls(0, 1, device or choose_device())

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, device_ids=[self.device] if self.device.type == "cuda" else None)

    def sync_gradients(self, network: nn.Module, on: bool) -> AbstractContextManager:
        """A context in which a backward pass averages gradients only if `on`; of several, the last is enough."""
        if on or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return network.no_sync()

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes; all get the same sums."""
        if self.size == 1:
            return list(values)
        # MPS has no float64, but there it is always a single process.
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, tensor: Tensor) -> Tensor:
        """This tensor from all processes, concatenated along the first dimension in the order of the ranks."""
        if self.size == 1:
            return tensor
        tensor = tensor.to(self.device)
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(gathered, tensor)
        return torch.cat(gathered)

    def mean(self, value: float) -> float:
        """The mean over the processes; all get the same."""
        return self.sum(value)[0] / self.size

    def broadcast(self, value: float) -> float:
        """Rank 0's value, whatever the others pass."""
        return self.sum(value if self.is_main else 0.0)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same answer."""
        return self.sum(flag)[0] > 0

    def main_process_first(self, work: Callable[[], T]) -> T:
        """Runs `work` in the main process, then in the others. If it fails there, the others exit silently."""
        if not self.is_main:
            if self.sum(0.0)[0]:
                raise SystemExit(1)
            return work()
        try:
            result = work()
        except BaseException:
            self.sum(1.0)
            raise
        self.sum(0.0)
        return result

    def barrier(self) -> None:
        """Waits until all processes have come here."""
        if self.size > 1:
            self.sum(0.0)


@contextmanager
def init_distributed() -> Generator[World, None, None]:
    """The world of this process: with the others that torchrun started, or alone."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # The others wait while rank 0 downloads and decodes, which may take hours.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield World(rank, size, device)
    finally:
        # The group's threads must end here: one that releases a tensor while Python shuts down aborts the process.
        gc.collect()  # DistributedDataParallel is part of a reference cycle and holds on to the group.
        dist.destroy_process_group()
