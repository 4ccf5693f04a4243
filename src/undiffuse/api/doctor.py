"""What this machine has: versions, device, speed, disk space, and missing extras."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from undiffuse.data.store import cache_folder
from undiffuse.features.weights import EFFICIENTNET_PACKAGE
from undiffuse.utils.device import choose_device, compute_dtype, convolution_format, has_fast_bf16, synchronize
from undiffuse.utils.errors import Skipped

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "tyro", "scikit-learn")
EXTRAS = {
    "studio": ("gradio",),
    "hub": ("diffusers", "huggingface_hub"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "remote": ("aiohttp",),
    "offline": (EFFICIENTNET_PACKAGE, "timm"),
}


@dataclass(frozen=True)
class Disk:
    """Space for a folder that undiffuse writes to."""

    contents: str
    """What the folder is for, in a word."""
    folder: Path
    free_bytes: int


@dataclass(frozen=True)
class Machine:
    """What `undiffuse doctor` reports."""

    version: str
    """Undiffuse's."""
    python: str
    packages: dict[str, str]
    """Versions by package."""
    device: str
    """The device that is used, in words."""
    unusable_gpu: bool
    """Whether torch was built for CUDA, but finds no GPU."""
    fp32_flops: float
    """Operations per second in a convolution, forward and backward."""
    bf16_flops: float | Skipped
    """The same in bfloat16."""
    has_fast_bf16: bool
    training_dtype: torch.dtype
    disks: tuple[Disk, ...]
    extras: dict[str, tuple[str, ...]]
    """The missing packages of each extra."""


def inspect_machine() -> Machine:
    """Measures the speed of convolutions, which takes seconds, and looks up the rest.

    Example:
        inspect_machine().training_dtype
    """
    device = choose_device()
    fp32 = _convolution_flops(device, torch.float32)
    try:
        bf16 = _convolution_flops(device, torch.bfloat16)
    except RuntimeError as error:
        bf16 = Skipped(f"unavailable on this device ({str(error).splitlines()[0]})")
    return Machine(
        version=importlib.metadata.version("undiffuse"),
        python=platform.python_version(),
        packages={package: importlib.metadata.version(package) for package in PACKAGES},
        device=_describe(device),
        unusable_gpu=torch.version.cuda is not None and not torch.cuda.is_available(),
        fp32_flops=fp32,
        bf16_flops=bf16,
        has_fast_bf16=has_fast_bf16(device),
        training_dtype=compute_dtype(device),
        disks=(_disk("runs", Path("runs")), _disk("images", cache_folder())),
        extras={
            extra: tuple(name for name in packages if importlib.util.find_spec(name) is None)
            for extra, packages in EXTRAS.items()
        },
    )


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        count = torch.cuda.device_count()
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB" + (f", {count} of them" if count > 1 else "")
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} processors"
    return f"{device.type}, {threads}, {torch.backends.cpu.get_cpu_capability()}"


def _convolution_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a 3x3 convolution with its gradients, which U-Nets mostly consist of."""
    b, c, side = (16, 64, 16) if device.type == "cpu" else (256, 256, 32)
    x = torch.randn(b, c, side, side, device=device, dtype=dtype).to(memory_format=convolution_format(device))
    x.requires_grad_()
    weight = torch.randn(c, c, 3, 3, device=device, dtype=dtype, requires_grad=True)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        F.conv2d(x, weight, padding=1).sum().backward()
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 3 * 2 * b * side**2 * 9 * c**2 / best


def _disk(contents: str, folder: Path) -> Disk:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return Disk(contents, folder.absolute(), shutil.disk_usage(existing).free)
