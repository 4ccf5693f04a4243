"""One process, or many under torchrun: which one this is, and what all of them agree on."""

import gc
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Before there is a process group: DistributedDataParallel imports it, and a group that exists by then stays in its
# functions' defaults.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from undiffuse.utils.device import choose_device
from undiffuse.utils.errors import PeerFailed, WorkFailed
from undiffuse.utils.peers import Peers, reason_of
from undiffuse.utils.sharding import is_sharded, shard
from undiffuse.utils.text import plural

T = TypeVar("T")

JOINING = timedelta(minutes=10)
"""How long a process waits for the others to start."""

WAITS = timedelta(days=1)
"""How long processes wait on the CPU: while the main one downloads and decodes, hours. A failure ends it sooner."""

GPU_WAITS = timedelta(minutes=30)
"""How long they wait on GPUs, where all of them have work."""


@dataclass(frozen=True)
class World:
    """This process among the ones that work together. Only rank 0 decides, writes files and prints."""

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    """This process among those on its machine."""
    peers: Peers | None = None
    control: dist.ProcessGroup | None = None
    """A group on the CPU for what the processes agree on, however long they wait for it; None takes the default."""

    @classmethod
    def alone(cls, device: torch.device | None = None) -> "World":
        """A single process, on `device` or else on the best device of the machine."""
        return cls(0, 1, device or choose_device())

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, network: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """Splits the network's weights over the processes and moves them to the device, block by block, in place."""
        shard(network, blocks, self.device, self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the processes, as those of a sharded one are anyway."""
        if self.size == 1 or any(map(is_sharded, network.parameters())):
            return network
        # Of 1x1 convolutions the strides of dimensions of size 1 differ, which changes nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)  # Not a copy of each.

    def sync_gradients(self, network: nn.Module, on: bool) -> AbstractContextManager:
        """A context in which a backward pass averages gradients only if `on`; of several, the last is enough.

        Those of a sharded network are averaged every time: kept until the last, they would be whole in every process.
        """
        if on or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return network.no_sync()

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes; all get the same sums."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.control)
        return tensor.tolist()

    def add_up(self, tensor: Tensor) -> None:
        """Sums a tensor on the CPU over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.control)

    def gather(self, tensor: Tensor) -> Tensor:
        """This tensor from all processes, concatenated along the first dimension in the order of the ranks."""
        if self.size == 1:
            return tensor
        tensor = tensor.to(self.device)
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(gathered, tensor)
        return torch.cat(gathered)

    def mean_tensor(self, value: Tensor) -> Tensor:
        """The mean over the processes, on the device and without waiting for it."""
        if self.size > 1:
            dist.all_reduce(value)
            value = value / self.size
        return value

    def share(self, value: T) -> T:
        """Rank 0's value, of any type that can be pickled, whatever the others pass."""
        if self.size == 1:
            return value
        shared: list[Any] = [value if self.is_main else None]
        dist.broadcast_object_list(shared, src=0, group=self.control)
        return shared[0]

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` returns in the main process, in all of them; the others wait. If it fails there, all end."""
        result: Any = work() if self.is_main else None
        return self.share(result)

    def on_each_machine(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process of each machine, in all processes there."""
        if self.size == 1:
            return work()
        mine = work() if self.local_rank == 0 else None
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine, group=self.control)
        return everyone[self.rank - self.local_rank]

    def in_turn(self, work: Callable[[], T]) -> T:
        """What `work` returns in each process: first in rank 0, then in the first process of each machine, then in all.

        So what the first ones download and decode is there for the others.
        """
        mine = 0 if self.is_main else 1 if self.local_rank == 0 else 2
        results = []
        for turn in range(3):
            if turn == mine:
                results.append(work())
            self.barrier()
        return results[0]

    def deal(self, items: Sequence[T], batch: int) -> list[Sequence[T]]:
        """Batches for all processes, which take them in turns: rank r the r-th, and then every `size`-th.

        They are the same for any number of processes that all get a whole batch; of fewer items each gets some.
        """
        size = max(1, min(batch, -(-len(items) // self.size)))
        return [items[start : start + size] for start in range(0, len(items), size)]

    def collect(self, value: T) -> list[T]:
        """The values of all processes by rank, in the main one; an empty list in the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values, dst=0, group=self.control)
        return values or []

    def share_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rank 0's tensors by name, on the CPU, whatever the others pass."""
        return dict(self.each_tensor(tensors))

    def each_tensor(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Rank 0's tensors one after another, with their names, on the CPU, whatever the others pass."""
        if self.size == 1:
            yield from tensors.items()
            return
        shapes = self.share({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()})
        for name, (shape, dtype) in shapes.items():
            tensor = tensors[name].cpu().contiguous() if self.is_main else torch.empty(shape, dtype=dtype)
            dist.broadcast(tensor, src=0, group=self.control)
            yield name, tensor

    def failure_of_another(self, error: BaseException) -> PeerFailed | None:
        """What another process failed of, if that is where the error in this one comes from.

        Raises:
            SystemExit: it is, but another process tells the user.
        """
        failure = self.peers.failure() if self.peers else None
        if failure is None or self.peers is None or (failure.interrupted and isinstance(error, KeyboardInterrupt)):
            return None
        if not self.peers.speaks(failure):
            raise SystemExit(1) from error
        return PeerFailed(self.peers.sentence(failure))

    def barrier(self) -> None:
        """Waits until all processes have come here."""
        if self.size > 1:
            self.sum(0.0)


@contextmanager
def init_distributed() -> Generator[World, None, None]:
    """The world of this process: with the others that torchrun started, or alone.

    If one process fails, all of them end within seconds, and one says why.

    Raises:
        ValueError: there are more processes on this machine than GPUs.
        PeerFailed: another process failed.
        SystemExit: another process failed, and yet another tells the user.
    """
    size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(local_rank)
    if size == 1:
        yield World(0, 1, device)
        return
    world = _join(size, local_rank, device)
    peers = world.peers
    assert peers is not None
    try:
        yield world
        peers.leave()
    except BaseException as error:
        # A connection may be broken because another process ended; for other errors the reason is here.
        unclear = isinstance(error, RuntimeError | KeyboardInterrupt) and not isinstance(error, WorkFailed)
        other = world.failure_of_another(error) if unclear else None
        if other is None:
            peers.report(reason_of(error), interrupted=isinstance(error, KeyboardInterrupt))
        peers.leave()
        if other is not None:
            raise other from error
        raise
    finally:
        _end_groups(device)


def _join(size: int, local_rank: int, device: torch.device) -> World:
    on_gpu = device.type == "cuda"
    if device.type == "mps":
        raise ValueError("Several processes cannot share Apple's GPU: run the command without torchrun.")
    if on_gpu:
        if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count():
            gpus = plural(torch.cuda.device_count(), "GPU")
            raise ValueError(f"There are more processes on this machine than its {gpus}: give --nproc-per-node fewer.")
        torch.cuda.set_device(device)
    store = dist.PrefixStore(str(next(_joined)), _shared_store(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]))
    rank = int(os.environ["RANK"])
    backend, timeout = ("nccl", GPU_WAITS) if on_gpu else ("gloo", WAITS)
    group = dist.PrefixStore("group", store)
    dist.init_process_group(backend, timeout=timeout, store=group, rank=rank, world_size=size)
    control = dist.new_group(backend="gloo", timeout=WAITS) if on_gpu else None
    assert not isinstance(control, int)  # It is one for processes outside the group.
    peers = Peers(dist.PrefixStore("peers", store), rank, size)
    dist.barrier(group=control)
    peers.start()
    return World(rank, size, device, local_rank, peers, control)


_joined = itertools.count()
"""How often this process has joined others, as often as they did: each time all of them use other keys of the store."""


@lru_cache(maxsize=1)
def _shared_store(address: str, port: str) -> dist.Store:
    """The store by which processes find each other, kept for the next time.

    Opened again, one process might still meet the old one of another, with addresses that are no longer true.
    """
    store, _, _ = next(dist.rendezvous("env://", timeout=JOINING))
    return store


def _end_groups(device: torch.device) -> None:
    # The group's threads must end here: one that releases a tensor while Python shuts down aborts the process.
    gc.collect()  # DistributedDataParallel is part of a reference cycle and holds on to the group.
    if sys.exception() is None or device.type != "cuda":
        dist.destroy_process_group()
    elif dist.group.WORLD is not None:  # NCCL's way of ending in order would wait for the process that failed.
        dist.group.WORLD.abort()
