"""undiffuse doctor"""

from undiffuse.utils.errors import Skipped
from undiffuse.utils.terminal import console


def doctor() -> None:
    """Show what this machine has and what is missing: versions, device, speed of bf16, disk space, extras."""
    from undiffuse.api.doctor import inspect_machine

    machine = inspect_machine()
    console.print(f"undiffuse    {machine.version}, Python {machine.python}")
    for package, version in machine.packages.items():
        console.print(f"{package:<12} {version}")
    console.print(f"\ndevice      {machine.device}")
    if machine.unusable_gpu:
        console.print("GPU         none that this CUDA build of torch can use; if there is one, check its driver")
    console.print(f"fp32        {machine.fp32_flops / 1e9:,.0f} GFLOP/s in a convolution, forward and backward")
    if isinstance(machine.bf16_flops, Skipped):
        console.print(f"bf16        {machine.bf16_flops.reason}")
    else:
        speed = f"{machine.bf16_flops / 1e9:,.0f} GFLOP/s, {machine.bf16_flops / machine.fp32_flops:.1f} times fp32"
        verdict = "used for training" if machine.has_fast_bf16 else "not used: this hardware only emulates it"
        console.print(f"bf16        {speed}; {verdict}")
    console.print(f"training    in {str(machine.training_dtype).removeprefix('torch.')}, weights in float32")
    for disk in machine.disks:
        console.print(f"disk        {disk.free_bytes / 2**30:,.0f} GiB free for {disk.contents} in {disk.folder}")
    for extra, missing in machine.extras.items():
        state = f"missing: pip install 'undiffuse[{extra}]'" if missing else "installed"
        console.print(f"{extra:<11} {state}")
