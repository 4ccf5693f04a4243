"""A student of one or two steps from a trained run: training goes on with another objective."""

from collections.abc import Callable, Sequence
from pathlib import Path

from undiffuse.api.runs import RunLike
from undiffuse.api.train import starting_point, train
from undiffuse.config import Config
from undiffuse.data.paths import DataLike
from undiffuse.networks.network import NetworkConfig
from undiffuse.runs.run import Run
from undiffuse.sampling.options import Settings, as_settings
from undiffuse.training.distillation import student_settings
from undiffuse.training.observers import Event, Observer
from undiffuse.utils.names import Compile, Precision
from undiffuse.utils.world import init_distributed


def distill(
    run: RunLike,
    *,
    data: DataLike | None = None,
    data_root: str | Path | None = None,
    condition: DataLike | None = None,
    images: int | str | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    checkpoint_images: int | str | None = None,
    keep: int = 3,
    seed: int = 0,
    out: str | Path | None = None,
    precision: Precision = "fp32",
    compile: Compile = "auto",
    set: Settings = (),
    dry_run: bool = False,
    network: type[NetworkConfig] | None = None,
    observers: Sequence[Observer | Callable[[Event], object]] = (),
    progress: bool = False,
) -> Run:
    """Trains a student of a run that makes an image in one or two evaluations of its network (docs/few-steps.md).

    Easy consistency tuning (Geng et al. 2024) from the run's EMA weights, on its images. The student is a run like any
    other: sampled, evaluated, edited with and exported as one. Called again with the same arguments, it resumes.

    Args:
        run: The run to start from, its folder, its name under runs/, or a model that comes with undiffuse.
        data: The run's images, where they have moved, or others of the same size and channels; None: where they were.
        data_root: Where cifar10 and flowers102 are; None: where they were.
        condition: The run's table or other images, as in `train`, where they have moved; None: where they were.
        images: Budget in images seen, as in 50_000 or "2M". None takes the budget of the run itself.
        minutes: Budget in minutes instead.
        batch: As in `train`, and so are checkpoint_images, keep, seed, compile, set, dry_run, observers and progress.
        out: The run folder; None takes runs/RUN-distilled.
        precision: fp32 by default, because the two images of a pair differ by little more than bf16 resolves.
        network: The config class of a network of your own.

    Raises:
        FileNotFoundError: there is no such run, or its images are not where they were.
        ValueError: the run cannot be distilled, or an option does not fit it.
        WorkFailed, Interrupted: as in `train`.

    Example:
        student = undiffuse.distill("digits", images="100k", progress=True)
        undiffuse.load(student).sample(8, steps=1)
    """
    with init_distributed() as world:
        source = world.on_main(lambda: starting_point(run, out, None, network))
    if source is None:
        raise ValueError("Give the run to distill.")
    config, name = source.run.config, source.run.name
    data_root = config.data.data_root if data_root is None else data_root
    size, channels = config.network.size, config.network.image_channels
    return train(
        config.data.data if data is None else data,
        data_root=data_root,
        split=config.data.split,
        size=size,
        fit=config.data.fit,
        channels=channels,
        unconditional=not config.class_names,
        condition=_condition(config, name) if condition is None else condition,
        from_run=run,
        images=images,
        minutes=minutes,
        batch=batch,
        checkpoint_images=checkpoint_images,
        keep=keep,
        seed=seed,
        out=Path("runs") / f"{name}-distilled" if out is None else out,
        precision=precision,
        compile=compile,
        set=[*as_settings(student_settings(config, name)), *as_settings(set)],
        dry_run=dry_run,
        network=network,
        observers=observers,
        progress=progress,
    )


def _condition(config: Config, name: str) -> str | None:
    """What the run was told of its images besides their classes, as `train` takes it.

    Raises:
        ValueError: it is a table, and an older version did not record where that is.
    """
    if config.attributes is not None and config.condition is None:
        raise ValueError(f"{name} was trained with a table: give that with --condition.")
    return config.condition
