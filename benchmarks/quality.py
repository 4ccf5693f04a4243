"""Quality for the time spent: train for so many minutes, sample, and measure; ours and the peers'.

    pip install -e '.[bench,offline]'
    python benchmarks/quality.py ours --data path/to/cifar10 --minutes 6 --name small
    python benchmarks/quality.py ours --data path/to/cifar10 --minutes 6 --name wide --set network.channels=48
    python benchmarks/quality.py peer --data path/to/cifar10 --minutes 6 --peer diffusers --size s
    python benchmarks/quality.py table

The data is a folder with train/ and test/. Minutes are those of an idle machine: the speed of a training step is
measured first, and the budget is that many images, so that other work on the machine changes when a run ends, but not
what it trains. Every run keeps its numbers in benchmarks/results/quality/NAME.json.
"""

import json
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro
from measuring import held_out_losses, machine, training_speed
from peers import PeerName, PeerSize, train_peer

import undiffuse
from undiffuse.data.store import DataConfig, open_store
from undiffuse.runs.run import Run
from undiffuse.sampling.model import Model

RESULTS = Path(__file__).parent / "results" / "quality"
FEATURES = "efficientnet-lite0"


@dataclass
class Result:
    """What one run came to."""

    name: str
    command: str
    minutes: float
    images: int
    images_per_second: float
    parameters: int
    seed: int
    settings: dict[str, Any]
    machine: str
    held_out: dict[str, float] = field(default_factory=dict)
    """sigma -> EDM-weighted squared error of the denoiser on held-out images, where 1 is the error of the best guess
    that does not look at them."""
    samples: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How they were sampled -> the metrics."""
    wall_minutes: float = 0.0

    def save(self) -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def ours(
    name: str,
    data: Path = Path("data/cifar10"),
    minutes: float = 6,
    preset: str = "small",
    set: tuple[str, ...] = (),
    seed: int = 0,
    count: int = 2000,
    guidance: tuple[float, ...] = (1.0,),
    steps: int = 18,
    unconditional: bool = False,
    images_per_second: float | None = None,
    half_size_first: float = 0.0,
    half_size_speed: float | None = None,
    snapshots: int = 0,
    out: Path = Path("runs/quality"),
) -> None:
    """Trains one of our presets, with settings changed.

    Args:
        name: Of the result and the run folder.
        data: Folder with train/ and test/.
        minutes: Training time on an idle machine.
        preset: Recipe to start from.
        set: Settings to change, as in network.dropout=0.1.
        seed: Of the run.
        count: Samples that are measured.
        guidance: The samples are made with each of these.
        steps: Of the sampler.
        unconditional: Leave out the classes.
        images_per_second: The speed of this machine when it was idle, from an earlier run; None measures it.
        half_size_first: Train at half the height and width first, for this fraction of the minutes.
        half_size_speed: Images per second there, as images_per_second.
        snapshots: Checkpoints to keep, evenly spaced over the images: for `undiffuse tune-ema`.
        out: Folder of the run folders.
    """
    options: dict[str, Any] = {"preset": preset, "set": set, "seed": seed, "out": out / name}
    options["unconditional"] = unconditional
    plan = undiffuse.train(data / "train", minutes=minutes, dry_run=True, **options)
    speed = images_per_second or training_speed(plan.config)
    batch = plan.config.training.batch
    images = max(1, round(60 * minutes * (1 - half_size_first) * speed / batch)) * batch
    print(f"{name}: {speed:.1f} images/s, {images:,} images", flush=True)
    began = time.monotonic()
    if half_size_first:
        half = _train_at_half_size(data, plan, 60 * minutes * half_size_first, half_size_speed, options)
        options |= {"preset": None, "from_run": half, "size": plan.config.network.size}
        options["set"] = (*set, f"optimizer.decay_fraction={plan.config.optimizer.decay_fraction}")
    if snapshots:
        options |= {"keep": snapshots, "checkpoint_images": images // snapshots}
    run = undiffuse.train(data / "train", images=images, **options)
    wall = (time.monotonic() - began) / 60
    model = undiffuse.load(run)
    settings = {setting.partition("=")[0]: setting.partition("=")[2] for setting in set}
    parameters = sum(p.numel() for p in model.network.parameters())
    command = f"ours --name {name} --minutes {minutes:g} --preset {preset} --seed {seed}"
    command += f" --half-size-first {half_size_first:g}" if half_size_first else ""
    command += (" --unconditional" if unconditional else "") + (f" --set {' '.join(set)}" if set else "")
    result = Result(name, command, minutes, images, speed, parameters, seed, settings, machine())
    result.wall_minutes = wall
    finish(result, model, data, count, guidance if model.class_names else (1.0,), steps)


def _train_at_half_size(data: Path, plan: Run, seconds: float, speed: float | None, options: dict[str, Any]) -> Run:
    """Trains the plan's network at half the size, at its own speed."""
    network = plan.config.network.resized((plan.config.network.size[0] // 2, plan.config.network.size[1] // 2))
    attention = list(network.attention_resolutions)
    settings = (*options["set"], f"network.attention_resolutions={attention}", "optimizer.decay_fraction=0")
    half = options | {"size": network.size, "set": settings, "out": options["out"].with_name(f"{plan.name}-half")}
    speed = speed or training_speed(undiffuse.train(data / "train", dry_run=True, **half).config)
    return undiffuse.train(data / "train", images=round(seconds * speed), **half)


def peer(
    peer: PeerName,
    size: PeerSize = "s",
    data: Path = Path("data/cifar10"),
    minutes: float = 6,
    seed: int = 0,
    count: int = 2000,
    steps: int = 18,
    images_per_second: float | None = None,
) -> None:
    """Trains a peer's network as its own example does; sampled by our sampler, which needs fewer steps than theirs.

    Args:
        peer: Which package.
        size: Its example's network (l), or half (m) or a quarter (s) of its channels.
        data: Folder with train/ and test/.
        minutes: Training time on an idle machine.
        seed: Of the run.
        count: Samples that are measured.
        steps: Of the sampler.
        images_per_second: As for ours.
    """
    name = f"{peer}-{size}-{minutes:g}min" + (f"-seed{seed}" if seed else "")
    store = open_store(DataConfig(data=str(data / "train"), size=(32, 32), channels=3))
    trained = train_peer(peer, size, store, minutes, seed, images_per_second)
    command = f"peer --peer {peer} --size {size} --minutes {minutes:g} --seed {seed}"
    speed, parameters = trained.images_per_second, trained.parameters
    result = Result(name, command, minutes, trained.images, speed, parameters, seed, {}, machine())
    result.wall_minutes = trained.wall_minutes
    finish(result, trained.model, data, count, (1.0,), steps)


def floor(data: Path = Path("data/cifar10"), count: int = 2000) -> None:
    """Measures real training images as if they were samples: the least distance that anything can reach.

    Args:
        data: Folder with train/ and test/.
        count: How many.
    """
    evaluation = undiffuse.measure(data / "test", data / "train", count=count, features=FEATURES)
    result = Result("real-images", "floor", 0, 0, 0, 0, 0, {}, machine())
    result.samples["real"] = metrics(evaluation)
    result.save()
    print(json.dumps(result.samples))


def again(
    run: Path,
    name: str,
    data: Path = Path("data/cifar10"),
    count: int = 2000,
    guidance: tuple[float, ...] = (1.0,),
    steps: int = 18,
    sampler: str | None = None,
    precision: str = "auto",
) -> None:
    """Measures a run of `ours` with other options of sampling, and adds them to its result.

    Args:
        run: Its folder.
        name: Of its result.
        data: Folder with train/ and test/.
        count: Samples that are measured.
        guidance: Each of these.
        steps: Of the sampler.
        sampler: Which; None takes the run's.
        precision: Of the network.
    """
    file = RESULTS / f"{name}.json"
    result = Result(**json.loads(file.read_text(encoding="utf-8")))
    finish(result, undiffuse.load(run), data, count, guidance, steps, sampler, precision)


def finish(
    result: Result,
    model: Model,
    data: Path,
    count: int,
    guidance: tuple[float, ...],
    steps: int,
    sampler: str | None = None,
    precision: str = "auto",
) -> None:
    """Measures the held-out loss and the samples, and keeps the result."""
    if not result.held_out:
        test = open_store(DataConfig(data=str(data / "test"), size=(32, 32), channels=3))
        result.held_out = held_out_losses(model, test)
        result.save()
    for scale in guidance:
        options = {"precision": precision} | ({"guidance": scale} if scale != 1 else {})
        began = time.monotonic()
        images = model.sample(count, steps=steps, sampler=sampler or "ipndm", **options)
        seconds = time.monotonic() - began
        evaluation = undiffuse.measure(data / "test", images, features=FEATURES)
        key = f"{count} samples, {sampler or 'ipndm'} {steps}, guidance {scale:g}" + (
            "" if precision == "auto" else f", {precision}"
        )
        result.samples[key] = metrics(evaluation) | {"seconds": round(seconds, 1)}
        result.save()
        print(result.name, key, result.samples[key], flush=True)
    print(result.name, {sigma: round(value, 4) for sigma, value in result.held_out.items()}, flush=True)


def metrics(evaluation: undiffuse.Evaluation) -> dict[str, float]:
    names = ("FD-EffNet", "KD-EffNet", "precision", "recall")
    return {name: float(evaluation[name].value) for name in names}


def table() -> None:
    """Prints all results as a table in Markdown, best first."""
    results = [Result(**json.loads(file.read_text(encoding="utf-8"))) for file in RESULTS.glob("*.json")]
    print("| run | minutes | images | images/s | parameters | held-out loss | FD-EffNet | KD | recall | samples |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for result in results:
        losses = list(result.held_out.values())
        mean = statistics.mean(losses) if losses else float("nan")
        for how, found in result.samples.items():
            fd, kd, recall = (found[key] for key in ("FD-EffNet", "KD-EffNet", "recall"))
            rows.append(
                (
                    result.minutes,
                    fd,
                    f"| {result.name} | {result.minutes:g} | {result.images:,} | {result.images_per_second:.0f} | "
                    f"{result.parameters / 1e6:.2f} M | {mean:.4f} | {fd:.1f} | {kd:.3f} | {recall:.2f} | {how} |",
                )
            )
    for _, _, row in sorted(rows, key=lambda row: row[:2]):
        print(row)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"ours": ours, "peer": peer, "floor": floor, "again": again, "table": table})
