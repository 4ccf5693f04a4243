"""undiffuse doctor"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from pathlib import Path

from undiffuse.utils.terminal import console

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "tyro", "scikit-learn")
EXTRAS = {"studio": ("gradio",), "hub": ("diffusers", "huggingface_hub")}


def doctor() -> None:
    """Say what this machine has and what is missing: versions, device, speed of bf16, disk, extras."""
    import torch

    from undiffuse.data.store import cache_folder
    from undiffuse.utils.device import choose_device, compute_dtype, has_fast_bf16

    console.print(f"undiffuse  {importlib.metadata.version('undiffuse')}, Python {platform.python_version()}")
    for package in PACKAGES:
        console.print(f"{package:<12} {importlib.metadata.version(package)}")
    device = choose_device()
    console.print(f"\ndevice      {_describe(device)}")
    if torch.version.cuda and not torch.cuda.is_available():
        console.print(
            "GPU         none that this CUDA build of torch can use; with one in the machine: check its driver"
        )
    fp32 = _convolution_speed(device, "float32")
    console.print(f"fp32        {fp32 / 1e9:,.0f} GFLOP/s in a convolution, forward and backward")
    verdict = "used for training" if has_fast_bf16(device) else "not used: this hardware only emulates it"
    try:
        bf16 = _convolution_speed(device, "bfloat16")
        console.print(f"bf16        {bf16 / 1e9:,.0f} GFLOP/s, {bf16 / fp32:.1f} times fp32; {verdict}")
    except RuntimeError as error:
        console.print(f"bf16        not to be had on this device ({str(error).splitlines()[0]})")
    console.print(f"training    in {str(compute_dtype(device)).removeprefix('torch.')}, weights in float32")
    for what, path in (("runs", Path("runs")), ("images", cache_folder())):
        console.print(f"disk        {_free(path) / 2**30:,.0f} GiB free for {what} in {path.absolute()}")
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        state = f"missing: pip install 'undiffuse[{extra}]'" if missing else "there"
        console.print(f"{extra:<11} {state}")


def _describe(device) -> str:
    import torch

    if device.type == "cuda":
        count = torch.cuda.device_count()
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB" + (f", {count} of them" if count > 1 else "")
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} processors"
    return f"{device.type}, {threads}, {torch.backends.cpu.get_cpu_capability()}"


def _convolution_speed(device, dtype: str) -> float:
    """Operations a second of a 3x3 convolution with its gradients, as a U-Net has many."""
    import torch
    import torch.nn.functional as F

    from undiffuse.utils.device import synchronize

    b, c, side = (16, 64, 16) if device.type == "cpu" else (256, 256, 32)
    kind = getattr(torch, dtype)
    x = torch.randn(b, c, side, side, device=device, dtype=kind).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(c, c, 3, 3, device=device, dtype=kind, requires_grad=True)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        F.conv2d(x, weight, padding=1).sum().backward()
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 3 * 2 * b * side**2 * 9 * c**2 / best


def _free(path: Path) -> int:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
