"""One process or many under torchrun: who am I, and what do we agree on."""

import gc
import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

# Before any group exists: DistributedDataParallel imports it, and what it finds then stays in its functions' defaults.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from undiffuse.utils.device import choose_device

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those that work together; rank 0 alone decides, writes and speaks."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls, device: torch.device | None = None) -> "World":
        """One process, on the best device of the machine unless told otherwise."""
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
        """Whether a backward pass in this context averages gradients; of accumulated ones only the last need do."""
        if on or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return network.no_sync()

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes; all get the same."""
        if self.size == 1:
            return list(values)
        # MPS knows no float64, but then there is one process only.
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, tensor: Tensor) -> Tensor:
        """The same tensor of all processes, joined along its first dimension in the order of the ranks."""
        if self.size == 1:
            return tensor
        tensor = tensor.to(self.device)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    def mean(self, value: float) -> float:
        return self.sum(value)[0] / self.size

    def broadcast(self, value: float) -> float:
        """Rank 0's value, on which all then agree."""
        return self.sum(value if self.is_main else 0.0)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same."""
        return self.sum(flag)[0] > 0

    def main_process_first(self, work: Callable[[], T]) -> T:
        """What `work` returns, done by the main process first. Where it fails there, the others end without a word."""
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
        """Returns when all processes have come here."""
        if self.size > 1:
            self.sum(0.0)


@contextmanager
def init_distributed() -> Generator[World, None, None]:
    """Joins the other processes that torchrun started, if it did."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # The others wait while one process downloads and decodes: that may take hours.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield World(rank, size, device)
    finally:
        # The group's threads must end here: one that lets go of a tensor while Python shuts down aborts the process.
        gc.collect()  # DistributedDataParallel lies in a cycle, and holds the group.
        dist.destroy_process_group()
