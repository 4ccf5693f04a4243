"""What a machine must show before its results are trusted: the same numbers as float64 on the CPU, and its speed.

Nobody has every GPU: whoever has one runs this in less than ten minutes.
"""

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from undiffuse.api.sample import load
from undiffuse.api.train import train
from undiffuse.config import Config
from undiffuse.data.store import DataConfig
from undiffuse.diffusion.denoiser import predictor
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.presets import ImageFacts, configure
from undiffuse.runs.run import create_run
from undiffuse.sampling.model import Model
from undiffuse.training.cost import noise_inputs
from undiffuse.training.ema import update_ema
from undiffuse.training.optimizers import optimizer_tensors
from undiffuse.training.state import new_state
from undiffuse.utils.device import (
    autocast,
    choose_device,
    compile_network,
    compute_dtype,
    has_fast_bf16,
    resolved,
    synchronize,
)
from undiffuse.utils.errors import Skipped
from undiffuse.utils.files import write_atomically
from undiffuse.utils.names import Compile, Precision, SamplingPrecision
from undiffuse.utils.terminal import silence, track

IMAGES = 8
SIGMAS = (0.05, 1.0, 20.0)

MOST = {"fp32": 1e-4, "tf32": 4e-3, "bf16": 3e-2, "fp16": 4e-3}
"""Largest error of the network's output, relative to its largest value: eight units of rounding, and more for fp32."""

MOST_OF_GRADIENT = 1e-3
MOST_OF_PIXELS = 2
"""Of 255: a value between two may be rounded either way, and samplers that add noise carry that on."""

TRAINED: dict[str, Any] = {"size": 8, "batch": 64, "precision": "fp32"}
SMALL = ("network.channels=8", "network.groups=4", "network.patch=1", "network.dropout=0", "optimizer.decay_fraction=0")
ONE_BATCH_AT_ONCE = (*SMALL, "training.microbatch=64")


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    ok: bool | None
    """None: it could not be checked here."""
    found: str
    """In words."""
    seconds: float


@dataclass(frozen=True)
class SelfCheck:
    """What `undiffuse doctor --check` reports."""

    device: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(check.ok is not False for check in self.checks)

    def save(self, file: Path) -> None:
        """Writes all of it as JSON."""
        write_atomically(file, json.dumps({"ok": self.ok, **asdict(self)}, indent=2) + "\n")


Found = tuple[bool, str] | Skipped


def check_machine(device: torch.device | None = None) -> SelfCheck:
    """Checks the device, by default the best one here: minutes of work, with a progress bar where that is on.

    Example:
        report = check_machine()
        report.ok, [check.name for check in report.checks if check.ok is False]
    """
    device = device or choose_device()
    checks = list(_checks(device))
    found = [_checked(name, work) for name, work in track(checks, "checking", len(checks))]
    return SelfCheck(str(device), tuple(found))


def _checked(name: str, work: Callable[[], Found]) -> Check:
    began = time.monotonic()
    try:
        with silence():
            found = work()
    except Exception as error:  # Whatever a driver raises is what the report is for.
        found = False, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    ok, text = (None, found.reason) if isinstance(found, Skipped) else found
    return Check(name, ok, text, round(time.monotonic() - began, 1))


def _checks(device: torch.device) -> Iterator[tuple[str, Callable[[], Found]]]:
    model, exact = load("digits", device=device), _in_float64(load("digits", device="cpu"))
    yield "network, fp32", lambda: _network(model, exact, "fp32")
    yield "network, tf32", lambda: _network(model, exact, "tf32")
    yield "network, bf16", lambda: _network(model, exact, "bf16")
    yield "network, fp16", lambda: _network(model, exact, "fp16")
    yield "network, compiled", lambda: _compiled(model, exact, graphs=False)
    if device.type == "cuda":
        yield "network, CUDA graphs", lambda: _compiled(model, exact, graphs=True)
    yield "gradient of the loss", lambda: _gradient(model, exact)
    for sampler in SAMPLERS:
        yield f"sampler {sampler}", lambda sampler=sampler: _sampler(model, exact, sampler)
    yield "resuming", lambda: _resume(device)
    yield "two processes", lambda: _two_processes(device)
    for precision in ("fp32", "bf16", "fp16"):
        yield f"speed, {precision}", lambda precision=precision: _speed(device, precision)
    if device.type == "cuda":
        for compile, images in (("on", 128), ("on", 16), ("graphs", 16)):
            name = f"speed, bf16, compile {compile}, {images} at once"
            yield name, lambda compile=compile, images=images: _speed(device, "bf16", compile, images)
    yield "writing a checkpoint", lambda: _checkpoint(device)


def _in_float64(model: Model) -> Model:
    network = _copied(model).double()
    exact = predictor(network, model.diffusion.make_parametrization(), torch.float64)
    return replace(model, predict=exact, network=network)


def _copied(model: Model) -> nn.Module:
    assert model.network is not None
    return copy.deepcopy(model.network)


def _inputs(model: Model) -> tuple[Tensor, Tensor, Tensor]:
    """x, sigma and label: the same on every device."""
    eps = torch.randn(IMAGES, *model.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor([SIGMAS[i % len(SIGMAS)] for i in range(IMAGES)], dtype=torch.float64)
    return sigma[:, None, None, None] * eps, sigma, torch.arange(IMAGES) % len(model.class_names)


@torch.no_grad()
def _predicted(model: Model, precision: SamplingPrecision) -> Tensor:
    x, sigma, label = _inputs(model)
    dtype = torch.float64 if model.device.type == "cpu" else torch.float32
    with autocast(model.device, precision):
        found = model.predict(x.to(model.device, dtype), sigma.to(model.device, dtype), label.to(model.device))
    return found.x0.cpu().double()


def _compared(found: Tensor, exact: Tensor, most: float) -> Found:
    error = float((found - exact).abs().max() / exact.abs().max())
    return error <= most, f"largest error {error:.1e} of the largest value, at most {most:.0e}"


def _network(model: Model, exact: Model, precision: SamplingPrecision) -> Found:
    if precision == "tf32" != resolved(model.device, precision):
        return Skipped("this hardware has none")
    return _compared(_predicted(model, precision), _predicted(exact, "fp32"), MOST[precision])


def _compiled(model: Model, exact: Model, graphs: bool) -> Found:
    network = _copied(model)
    if not compile_network(network, model.device, graphs):
        return Skipped("torch.compile does not work here")
    compiled = replace(model, predict=predictor(network, model.diffusion.make_parametrization()), network=network)
    return _compared(_predicted(compiled, "fp32"), _predicted(exact, "fp32"), MOST["fp32"])


def _gradient(model: Model, exact: Model) -> Found:
    def gradient(each: Model, dtype: torch.dtype) -> Tensor:
        network = _copied(each).requires_grad_()
        eps, sigma, label = _inputs(each)
        eps, sigma = eps.to(each.device, dtype), sigma.to(each.device, dtype)
        loss_of = each.config.diffusion.make_loss()
        losses = loss_of(network, x0=torch.zeros_like(eps), eps=eps, sigma=sigma, label=label.to(each.device))
        losses.mean().backward()
        return torch.cat([p.grad.flatten().cpu().double() for p in network.parameters() if p.grad is not None])

    found, reference = gradient(model, torch.float32), gradient(exact, torch.float64)
    error = float((found - reference).norm() / reference.norm())
    return error <= MOST_OF_GRADIENT, f"error {error:.1e} of its length, at most {MOST_OF_GRADIENT:.0e}"


def _sampler(model: Model, exact: Model, sampler: str) -> Found:
    images = [each.sample(IMAGES, sampler=sampler, steps=8, precision="fp32").astype(int) for each in (model, exact)]
    difference = int(abs(images[0] - images[1]).max())
    return difference <= MOST_OF_PIXELS, f"largest difference {difference} of 255, at most {MOST_OF_PIXELS}"


def _resume(device: torch.device) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {**TRAINED, "set": ONE_BATCH_AT_ONCE, "compile": "off"}
        whole = train("digits", images=640, out=f"{folder}/whole", **options)
        train("digits", images=320, out=f"{folder}/halves", **options)
        halves = train("digits", images=640, out=f"{folder}/halves", **options)
        ours, theirs = (run.last_good() for run in (halves, whole))
        assert ours is not None
        assert theirs is not None
        if ours.digest("ema") == theirs.digest("ema"):
            return True, "the same bits as without a stop"
        expected = theirs.tensors("ema")
        error = max(float((value - expected[name]).abs().max()) for name, value in ours.tensors("ema").items())
        # On a GPU sums may be taken in another order each time.
        return device.type != "cpu" and error <= 1e-3, f"weights differ by up to {error:.1e} from those without a stop"


def _two_processes(device: torch.device) -> Found:
    if device.type == "mps" or (device.type == "cuda" and torch.cuda.device_count() < 2):
        return Skipped("there is one device only")
    with tempfile.TemporaryDirectory() as folder:
        alone = train("digits", images=640, out=f"{folder}/alone", set=ONE_BATCH_AT_ONCE, compile="off", **TRAINED)
        words = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "undiffuse",
        ]
        words += ["train", "--data", "digits", "--images", "640", "--out", f"{folder}/two", "--compile", "off"]
        words += [word for name, value in TRAINED.items() for word in (f"--{name}", str(value))]
        done = subprocess.run([*words, "--set", *ONE_BATCH_AT_ONCE], capture_output=True, text=True, timeout=300)
        if done.returncode:
            return False, (done.stderr or done.stdout).strip().splitlines()[-1]
        two = train("digits", images=640, out=f"{folder}/two", set=ONE_BATCH_AT_ONCE, compile="off", **TRAINED)
        losses = [[line["loss"] for line in run.log_lines()] for run in (alone, two)]
        error = max(abs(one - other) for one, other in zip(*losses, strict=True))
        return error <= 1e-4, f"losses differ by up to {error:.1e} from those of one process, at most 1e-04"


def _ddpm(precision: Precision, images: int) -> Config:
    """Ho et al.'s network for CIFAR-10 with 35.7 M parameters."""
    config = configure("cifar10-ddpm", ImageFacts((32, 32), 3), DataConfig(), seed=0)
    return replace(config, training=replace(config.training, precision=precision, batch=images, microbatch=images))


def _speed(device: torch.device, precision: Precision, compile: Compile = "off", images: int = 128) -> Found:
    if device.type == "cpu" and precision != "fp32" and not (precision == "bf16" and has_fast_bf16(device)):
        return Skipped("this hardware only emulates it")
    images = 4 if device.type == "cpu" else images
    config, dtype = _ddpm(precision, images), compute_dtype(device, precision)
    state, inputs, loss_of = (
        new_state(config, device),
        noise_inputs(config, images, device),
        config.diffusion.make_loss(),
    )
    if compile != "off":
        compile_network(state.network, device, graphs=compile == "graphs")

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with autocast(device, precision):
            loss = loss_of(state.network, **inputs).mean()
        loss.backward()
        for optimizer in state.optimizers:
            optimizer.step()
        update_ema(state.ema, state.network, images, images, 1e6)
        state.network.zero_grad()

    with FlopCounterMode(display=False) as counter, torch.no_grad(), autocast(device, precision):
        loss_of(state.network, **inputs)
    seconds, peak = _fastest(device, step), _matmul_flops(device, dtype)
    share = 3 * counter.get_total_flops() / seconds / peak  # Backward takes twice what forward does.
    return True, f"{images / seconds:,.1f} images/s, {share:.0%} of {peak / 1e12:.2f} TFLOP/s in a matrix product"


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    side = 1024 if device.type == "cpu" else 8192
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / _fastest(device, lambda: a @ a)


def _fastest(device: torch.device, work: Callable[[], object], times: int = 4) -> float:
    best = float("inf")
    for _ in range(times):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best


def _checkpoint(device: torch.device) -> Found:
    state = new_state(_ddpm("fp32", 4), device)
    network: nn.Module = state.network
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in state.optimizers:
        optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", _ddpm("fp32", 4))
        began = time.monotonic()
        parts = {"network": network.state_dict(), "ema": state.ema.state_dict()}
        run.save(4, {**parts, "optimizer": optimizer_tensors(state.optimizers)}, {}, keep=1)
        seconds = time.monotonic() - began
        megabytes = sum(file.stat().st_size for file in run.folder.rglob("*.safetensors")) / 1e6
    return True, f"{seconds:.1f} s for {megabytes:,.0f} MB, written beside training"
