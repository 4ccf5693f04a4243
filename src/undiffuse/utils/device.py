"""The one place that chooses where to compute, and in which precision."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from undiffuse.utils.names import SamplingPrecision
from undiffuse.utils.terminal import log

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps what processes share in memory."""

BATCHES_OF_A_WORKER = 2
"""What torch's DataLoader asks each worker for in advance."""


def choose_device(local_rank: int = 0) -> torch.device:
    """CUDA if there is any (each local rank its own device), else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; `autocast` takes less where it is asked for.
        torch.backends.cudnn.benchmark = True  # Batches all have one shape.
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16; emulated, it is many times slower (`undiffuse doctor` measures it)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # Before torch 2.10.
            return torch.cpu._is_avx512_bf16_supported()
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # "bf16" is ARM's.
    return False  # MPS: fp32 is safe everywhere.


def resolved(device: torch.device, precision: SamplingPrecision) -> SamplingPrecision:
    """The precision as what it is on this device.

    auto takes bf16 where the hardware has it, and fp16 on GPUs before Ampere, which have only that. tf32 exists on
    GPUs from Ampere on, and is fp32 elsewhere.
    """
    if precision == "tf32":
        return "tf32" if device.type == "cuda" and has_fast_bf16(device) else "fp32"
    if precision != "auto":
        return precision
    return "bf16" if has_fast_bf16(device) else "fp16" if device.type == "cuda" else "fp32"


def compute_dtype(device: torch.device, precision: SamplingPrecision = "auto") -> torch.dtype:
    """The type in which results of convolutions and matrix products are kept. Weights are always kept in fp32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(resolved(device, precision), torch.float32)


def autocast(device: torch.device, precision: SamplingPrecision) -> AbstractContextManager:
    """A context in which convolutions and matrix products have that precision; it does nothing for fp32.

    tf32 is for what needs no gradient: a backward pass outside of the context computes in fp32.
    """
    precision = resolved(device, precision)
    if precision == "fp32":
        return contextlib.nullcontext()
    return _tf32() if precision == "tf32" else torch.autocast(device.type, compute_dtype(device, precision))


@contextlib.contextmanager
def _tf32() -> Generator[None, None, None]:
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = True
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def compile_network(network: nn.Module, device: torch.device, graphs: bool = False) -> bool:
    """Speeds the network up in place with torch.compile, if that works here; says so if it does not.

    With `graphs`, CUDA records its kernels once and starts them together from then on.

    A compiler may be missing, or fail on a part of the network: that part then runs as it is.
    """
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(4, device=device))
    except Exception as error:  # Missing compilers and drivers raise nearly anything.
        reason = str(error).strip().partition("\n")[0]
        log.info(f"torch.compile does not work here ({reason}): training goes on without it, slower.")
        return False
    torch._dynamo.config.suppress_errors = True
    network.compile(mode="reduce-overhead" if graphs else None)
    return True


def memory_format(device: torch.device) -> torch.memory_format:
    """How networks lay their features out in memory.

    CUDA's tensor cores convolve channels_last. On a CPU convolutions are as fast either way (oneDNN reorders to blocks
    of its own), but group normalization of few channels a group is about ten times as fast in the other one:
    `benchmarks/layers.py` measures both.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def convolution_format(device: torch.device) -> torch.memory_format:
    """The same for networks without group normalization, which are fastest in channels_last on a CPU too.

    On MPS that has given wrong results (pytorch/pytorch#174345 and #180984).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def state_dtype(device: torch.device) -> torch.dtype:
    """The precision of a sampler's state: float64, because cosine sigmas reach 2e4; float32 on MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def has_log_ndtr(device: torch.device) -> bool:
    """Whether torch.special.log_ndtr can be computed there."""
    return device.type != "mps"


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU, or of the device itself, on the device, without waiting for CUDA; float64 as `state_dtype`.

    MPS is waited for: it may read the memory of a copy that nobody waited for after that was freed
    (pytorch/pytorch#189690). There and on the CPU the tensor becomes contiguous, as networks need it: see
    `convolution_format` and `memory_format`.
    """
    dtype = state_dtype(device) if tensor.dtype == torch.float64 else tensor.dtype
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, dtype, non_blocking=True)  # Unless it is pinned, copying waits.
    return tensor.to(device, dtype, memory_format=torch.contiguous_format)


def read_later(values: Float[Tensor, " n"]) -> Callable[[], list[float]]:
    """Begins to copy numbers to the CPU. The function returned gives them: it waits for them, not for later work."""
    if values.device.type != "cuda":
        return values.tolist
    copied = torch.empty_like(values, device="cpu", pin_memory=True)
    copied.copy_(values, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def read() -> list[float]:
        done.synchronize()
        return copied.tolist()

    return read


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def usable_cores() -> int:
    """The cores that this process may use: in a container or under a scheduler, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_a_process() -> int:
    """The cores that this process may use if all processes of this machine get as many; at least one."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def loader_workers(device: torch.device, batch_bytes: int) -> int:
    """How many worker processes prepare batches: up to eight on a GPU, none where the CPU trains too.

    Each passes on two batches of `batch_bytes` at a time, in the machine's shared memory, of which containers have
    little.
    """
    if device.type != "cuda":
        return 0
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    wanted = min(8, max(0, usable_cores() // local_processes - 1))
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.exists() else sys.maxsize
    fitting = free // (local_processes * BATCHES_OF_A_WORKER * batch_bytes)
    if fitting < wanted:
        log.info(
            f"{SHARED_MEMORY} has {free / 2**20:,.0f} MiB free, enough for {fitting} of {wanted} loader "
            "processes: start a container with --ipc=host, or with a larger --shm-size."
        )
    return min(wanted, fitting)
