"""undiffuse train"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from undiffuse.commands import values
from undiffuse.commands.asked import data_config, outside
from undiffuse.commands.options import unless_given
from undiffuse.data.source import check_data
from undiffuse.utils.errors import Interrupted
from undiffuse.utils.names import Channels, Fit, Precision, Split
from undiffuse.utils.terminal import log

if TYPE_CHECKING:
    from undiffuse.config import Config
    from undiffuse.data.store import DataConfig, Store
    from undiffuse.training.session import CheckpointOptions
    from undiffuse.training.signals import StopRequest
    from undiffuse.utils.world import World


def train(
    data: str = "digits",
    data_root: Annotated[str | None, unless_given("data/")] = None,
    split: Split = "auto",
    size: Annotated[str | None, unless_given("the images' own up to 64, else 64")] = None,
    fit: Fit = "crop",
    channels: Channels = "auto",
    strict: bool = False,
    unconditional: bool = False,
    preset: Annotated[str | None, unless_given("digits for digits, else small")] = None,
    images: Annotated[str | None, unless_given("the preset's")] = None,
    minutes: Annotated[float | None, unless_given("the preset's")] = None,
    batch: Annotated[int | None, unless_given("the preset's")] = None,
    checkpoint_images: Annotated[str | None, unless_given("one every five minutes")] = None,
    keep: int = 3,
    seed: int = 0,
    out: Annotated[str | None, unless_given("runs/DATA-PRESET-SIZE")] = None,
    precision: Precision = "auto",
    compile: bool = False,
    settings: Annotated[tuple[str, ...], unless_given("none", name="set")] = (),
    dry_run: bool = False,
) -> None:
    """Train a diffusion model on images, from scratch. The same command again resumes where it stopped.

    With a folder of images: undiffuse train --data photos/ --size 32 --minutes 10

    With several GPUs: torchrun --nproc-per-node 2 -m undiffuse train --data photos/ --images 2M

    Args:
        data: digits, cifar10, flowers102, a folder of images (sub-folders are classes), or a .zip or .tar of images.
        data_root: Where cifar10 and flowers102 lie, or are downloaded to.
        split: Part of the data. auto: train where there are splits; all of flowers102.
        size: FeatureSet in pixels, or height x width as in 48x64.
        fit: How images come to that size: crop the middle, pad with black, or stretch.
        channels: 1 gray, 3 RGB, 4 RGBA; auto: what the images have.
        strict: Fail at an image that cannot be decoded, rather than leave it out and say so.
        unconditional: Do not tell the network the classes, though there are some.
        preset: Recipe: digits, small, flowers64, or a paper's with cifar10-: ddpm, iddpm, iddpm-vlb, edm, flow.
        images: Budget in images seen, such as 50k or 2M.
        minutes: Budget in minutes, instead of images.
        batch: Images a step, over all processes.
        checkpoint_images: Images from one checkpoint to the next.
        keep: Checkpoints to keep.
        seed: Same seed and settings, same model.
        out: Run folder.
        precision: Of convolutions and matrix products; auto is bf16 where the hardware has it.
        compile: Let torch.compile speed up the network; takes a minute or more at the start.
        settings: Any other setting that --dry-run lists, as in network.dropout=0.2 optimizer.learning_rate=1e-3.
        dry_run: Show what would be done, with memory and time, and do nothing.
    """
    # What can be wrong is found before torch is loaded.
    sides = values.size(size) if size else None
    total_images = values.count(images, "--images") if images else None
    between = values.count(checkpoint_images, "--checkpoint-images") if checkpoint_images else None
    if keep < 1:
        raise ValueError(f"--keep {keep} keeps nothing: keep at least 1 checkpoint.")
    name = values.preset(preset, data)
    check_data(data)
    if images and minutes is not None:
        raise ValueError("A budget is either --images or --minutes: give one of them.")

    from undiffuse.presets import RECIPES
    from undiffuse.training.signals import StopRequest
    from undiffuse.utils.world import init_distributed

    asked = data_config(data, data_root, split, sides or RECIPES[name]().size, fit, channels)
    budget = {"total_images": total_images, "total_minutes": minutes} if total_images or minutes is not None else {}
    training = {**budget, "precision": precision} | ({"batch": batch} if batch is not None else {})

    def configured(store: "Store") -> "Config":
        return _configured(name, store, asked, seed, unconditional, training, settings)

    with StopRequest() as stop, init_distributed() as world:
        # Settings that fit no images at all are found before hours of decoding.
        planned = configured(_images_to_come(asked, RECIPES[name]().network.size))
        if planned.training.batch % world.size:
            raise ValueError(f"A batch of {planned.training.batch} cannot be split over {world.size} processes.")
        store = _open_store(asked, strict, world)
        config = configured(store)
        folder = Path(out) if out else Path("runs") / _run_name(store, name)
        outside(folder, data)
        _summary(folder, store, config, world)
        if dry_run:
            _estimate(config, world)
            return

        from undiffuse.training.session import CheckpointOptions

        _train(folder, config, store, CheckpointOptions(keep, between, compile), world, stop)


def _images_to_come(asked: "DataConfig", size: tuple[int, int]) -> "Store":
    """What is known of the images before they are opened; `size` stands for one that they will decide."""
    from undiffuse.data.store import Store

    return Store(
        folder=Path(),
        name="",
        split="all",
        content="",
        total_images=0,
        size=asked.size or size,
        channels=asked.channels or 3,
        class_names=(),
        skipped=(),
    )


def _open_store(asked: "DataConfig", strict: bool, world: "World") -> "Store":
    from undiffuse.data.store import open_store

    return world.main_process_first(lambda: open_store(asked, strict))


def _configured(
    preset: str, store: "Store", asked: "DataConfig", seed: int, unconditional: bool, training: dict, settings: tuple
) -> "Config":
    from undiffuse.config import with_settings
    from undiffuse.presets import configure

    found = replace(asked, split=store.split, size=store.size, channels=store.channels)
    config = configure(preset, store, found, seed, conditional=not unconditional)
    return with_settings(replace(config, training=replace(config.training, **training)), settings)


def _run_name(store: "Store", preset: str) -> str:
    return "-".join(dict.fromkeys([store.name, preset, f"{store.size[0]}x{store.size[1]}"]))


def _summary(folder: Path, store: "Store", config: "Config", world: "World") -> None:
    from undiffuse.utils.device import compute_dtype

    classes = f"{len(config.class_names)} classes" if config.class_names else "no classes"
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}[store.channels]
    training = config.training
    budget = f"{training.total_minutes:g} minutes" if training.total_minutes else f"{training.total_images:,} images"
    dtype = str(compute_dtype(world.device, training.precision)).removeprefix("torch.")
    many = f", {world.size} processes" if world.size > 1 else ""
    log.info(f"run      {folder.absolute()}")
    log.info(f"data     {len(store):,} images, {store.size[0]}x{store.size[1]} {kind}, {classes}, split {store.split}")
    log.info(f"recipe   {config.preset}, seed {config.seed}, batch {training.batch}, {budget}")
    log.info(f"device   {world.device}, {dtype}{many}")


def _estimate(config: "Config", world: "World") -> None:
    from undiffuse.config import flat
    from undiffuse.training.cost import estimate
    from undiffuse.utils.text import duration

    for name, value in flat(config).items():
        log.info(f"  {name} = {value}")
    cost = estimate(config, world.device, world.size)
    log.info(f"network  {cost.parameters:,} parameters")
    total, growing = cost.memory_bytes / 2**20, cost.activation_bytes / 2**20
    log.info(f"memory   about {total:,.0f} MiB a process, of which {growing:,.0f} MiB grow with the microbatch")
    speed = 1 / cost.seconds_per_image
    if config.training.total_images:
        log.info(f"time     about {duration(config.training.total_images / speed)} at {speed:,.0f} images/s")
    else:
        seen = 60 * (config.training.total_minutes or 0) * speed
        log.info(
            f"time     {config.training.total_minutes:g} minutes, for about {seen:,.0f} images at {speed:,.0f} images/s"
        )
    log.info("Nothing was written but decoded images. Leave --dry-run out to train.")


def _train(
    folder: Path,
    config: "Config",
    store: "Store",
    habits: "CheckpointOptions",
    world: "World",
    stop: "StopRequest",
) -> None:
    from undiffuse.runs.run import open_run
    from undiffuse.training.session import begin_or_resume, train_run

    run = world.main_process_first(lambda: begin_or_resume(folder, config) if world.is_main else open_run(folder))
    if not train_run(run, store, habits, world, stop):
        raise Interrupted(f"Saved; the same command goes on from here: {run.folder.absolute()}")
    log.info(f"Done: {run.folder.absolute()}")
    log.info(f"  previews   {run.folder / 'previews'}")
    log.info(f"  curves     tensorboard --logdir {run.folder / 'tensorboard'}")
    log.info(f"  images   undiffuse sample {run.folder}")
