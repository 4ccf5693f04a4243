"""undiffuse doctor"""

import sys
from pathlib import Path
from typing import Annotated

from undiffuse.commands.options import unless_given
from undiffuse.utils.errors import Skipped
from undiffuse.utils.terminal import console, loading


def doctor(check: bool = False, out: Annotated[str | None, unless_given("no file")] = None) -> None:
    """Show what this machine has and what is missing: versions, device, speed of bf16, disk space, extras.

    On a new GPU: undiffuse doctor --check --out check.json

    Args:
        check: Compare the device with float64 on the CPU: network, gradient, every sampler, other precisions, resuming
            and two processes; and measure the speed of training. Takes minutes; exits with 1 if anything is wrong.
        out: With --check, a file for the results as JSON.
    """
    if check:
        _check(out)
        return
    with loading():
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


def _check(out: str | None) -> None:
    with loading():
        from undiffuse.api.self_check import check_machine

    report = check_machine()
    console.print(f"device      {report.device}\n")
    for each in report.checks:
        mark = {True: "ok", False: "WRONG", None: "skipped"}[each.ok]
        console.print(f"{each.name:<24} {mark:<8} {each.found} ({each.seconds:g} s)")
    if out is not None:
        file = Path(out).expanduser()
        report.save(file)
        console.print(f"\nAll of it: {file.absolute()}")
    if not report.ok:
        sys.exit(1)
