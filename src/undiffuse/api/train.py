"""Training from scratch or from another run's weights, and resuming."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from undiffuse.api.data import SizeLike, check_outside, check_same_images, data_config
from undiffuse.api.runs import RunLike, as_run
from undiffuse.config import Config, TrainingConfig, flat, with_settings
from undiffuse.data.conditioned import conditioned
from undiffuse.data.low_resolution import small_size
from undiffuse.data.open import open_source
from undiffuse.data.paths import DataLike, is_table
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.data.table import read_table
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.presets import RECIPES, ImageFacts, configure
from undiffuse.runs.find import is_run
from undiffuse.runs.run import Run, open_run
from undiffuse.sampling.options import Settings, as_settings
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.choices import chosen
from undiffuse.training.cost import Cost, measure_cost
from undiffuse.training.observers import Event, Observer
from undiffuse.training.session import begin_or_resume, train_run
from undiffuse.training.signals import StopRequest
from undiffuse.training.start import Begun, Start, log_start, weights_for
from undiffuse.utils.device import compute_dtype
from undiffuse.utils.errors import Interrupted
from undiffuse.utils.names import Channels, Compile, Fit, Precision, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_low_res, parse_preset
from undiffuse.utils.terminal import log, speaking
from undiffuse.utils.text import CHANNELS, duration, number, size_text
from undiffuse.utils.world import World, init_distributed

COPIED_BELOW = 100
"""Fewer images than this may be memorized, which a notice says; docs/small-sets.md measures it with a hundred."""


@dataclass(frozen=True, repr=False)
class Plan(Run):
    """The run that `train(..., dry_run=True)` would make: `.folder`, `.config`, `.cost`. Printed, it says all of it."""

    cost: Cost
    """Measured on this machine."""

    def __str__(self) -> str:
        cost, training = self.cost, self.config.training
        total, growing = cost.memory_bytes / 2**20, cost.activation_bytes / 2**20
        speed = 1 / cost.seconds_per_image
        if training.total_images:
            time = f"about {duration(training.total_images / speed)} at {number(speed)} images/s"
        else:
            minutes = training.total_minutes or 0
            time = f"{minutes:g} minutes, for about {60 * minutes * speed:,.0f} images at {number(speed)} images/s"
        lines = [f"  {name} = {value}" for name, value in flat(self.config).items()]
        lines.append(f"network  {cost.parameters:,} parameters")
        lines.append(
            f"memory   about {total:,.0f} MiB per process, of which {growing:,.0f} MiB grow with the microbatch"
        )
        if cost.fitting_microbatch:
            less = f"--set training.microbatch={cost.fitting_microbatch}"
            lines.append(f"         more than there is: {less} fits and trains the same")
        return "\n".join([*lines, f"time     {time}"])


def train(
    data: DataLike = "digits",
    *,
    data_root: str | Path | None = None,
    split: Split = "auto",
    size: SizeLike | None = None,
    fit: Fit = "crop",
    channels: Channels | int = "auto",
    strict: bool = False,
    unconditional: bool = False,
    condition: DataLike | None = None,
    preset: str | None = None,
    from_run: RunLike = None,
    images: int | str | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    checkpoint_images: int | str | None = None,
    keep: int = 3,
    seed: int = 0,
    out: str | Path | None = None,
    precision: Precision = "auto",
    compile: Compile = "auto",
    set: Settings = (),
    dry_run: bool = False,
    network: NetworkConfig | type[NetworkConfig] | None = None,
    observers: Sequence[Observer | Callable[[Event], object]] = (),
    progress: bool = False,
) -> Run:
    """Trains a diffusion model on images, from scratch or `from_run`. Called again with the same arguments, it resumes.

    Ctrl-C or SIGTERM saves after the current step and raises KeyboardInterrupt. Under torchrun all processes share the
    work, and all of them get the run.

    Args:
        data: digits, cifar10, flowers102, a folder of images (sub-folders are classes), a .zip or .tar of images, the
            address of one (https://, s3://, gs://), or a sequence of images or of (image, label) pairs.
        data_root: Where cifar10 and flowers102 are, or are downloaded to; the folder data/ by default.
        split: Part of the data. auto: train where there are splits; all of flowers102.
        size: Height and width in pixels, as in 64, "48x64" or (48, 64). None: the images' own if they share one up to
            64, else 64.
        fit: How images are brought to that size: crop the center, pad with black, or stretch.
        channels: 1 gray, 3 RGB, 4 RGBA; auto: what the images have.
        strict: Fail if an image cannot be decoded, instead of leaving it out.
        unconditional: Do not give the network the classes, even if there are some.
        condition: What the network is told of each image besides its class. A CSV file of numbers and words, which
            `sample` takes as attributes; "low-res:4", the image itself made four times smaller (super-resolution); or
            a folder, an archive or a sequence of other images with the same names. See docs/conditions.md.
        preset: The recipe; None takes digits for digits, else small.
        from_run: Start with the EMA weights of this run, and its settings in place of a preset's. The images may be
            others, with new classes; then the learning rate is a third of its. `size` is by default its size, and may
            be another that its network can take.
        images: Budget in images seen, as in 50_000 or "2M". None takes the preset's budget.
        minutes: Budget in minutes instead.
        batch: Images per step, over all processes.
        checkpoint_images: Images from one checkpoint to the next; None writes one every five minutes.
        keep: How many checkpoints are kept.
        seed: The same seed and settings give the same model.
        out: The run folder; None takes runs/DATA-PRESET-SIZE.
        precision: Of convolutions and matrix products; auto is bf16 where the hardware has it, and fp16 on older GPUs.
        compile: Speed the network up with torch.compile, which takes a minute or more at the start; auto: on CUDA.
            graphs: with CUDA graphs, for few images at once.
        set: Any other settings, as in {"network.dropout": 0.2} or ("network.dropout=0.2",); a dry run lists them.
        dry_run: Do not train: return a `Plan`, a run not yet made, with its measured `cost`.
        network: A network of your own in place of the preset's U-Net: a NetworkConfig, or the class of one.
        observers: Observers, or functions that get an `Event` after every step; on rank 0 only.
        progress: Shows notices and a progress bar.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: an option is out of range or does not fit the images, or `out` holds something else.
        WorkFailed: training cannot go on; the message names the last good checkpoint.
        Interrupted: stopped by a signal, with everything saved; a KeyboardInterrupt.

    Example:
        run = undiffuse.train("photos/", size=32, minutes=10, progress=True)
        undiffuse.load(run).sample(8)
    """
    at_least(1, keep=keep)
    if images is not None and minutes is not None:
        raise ValueError("A budget is either --images or --minutes: give one of them.")
    every = None if checkpoint_images is None else parse_count(checkpoint_images, "--checkpoint-images")
    with StopRequest() as stop, init_distributed() as world, speaking(progress and world.is_main):
        start = world.on_main(lambda: starting_point(from_run, out, preset, network))
        name = parse_preset(preset, data) if start is None else start.run.config.preset
        own_size = RECIPES[name]().size if start is None else start.run.config.network.size
        request = _Request(
            preset=name,
            start=start,
            data=data_config(data, data_root, split, own_size if size is None else size, fit, channels),
            seed=seed,
            conditional=not unconditional,
            network=network,
            settings=[*_training_settings(images, minutes, batch, precision), *as_settings(set)],
            low_res=parse_low_res(condition),
        )
        request.check_before_images(world)
        store = open_store(request.data, strict, data, world)
        if isinstance(condition, str | Path) and is_table(condition):
            store = _with_table(store, Path(condition).expanduser(), start, request.data)
        else:
            store = conditioned(store, condition, request.data, strict, world)
        check_same_images(store, world)
        config = world.on_main(lambda: request.configure(store))
        folder = Path(out).expanduser() if out else Path("runs") / _run_name(store, name, network, start)
        check_outside(folder, data)
        if condition is not None:
            check_outside(folder, condition)
        _log_summary(folder, store, config, world)
        if isinstance(start, Start):
            log_start(start, config)
        if dry_run:
            if isinstance(start, Start):
                weights_for(config, start)  # Whether they fit.
            config = chosen(config, len(store), world.device, world.size)
            return Plan(folder, config, measure_cost(config, world.device, world.size))
        begin = partial(begin_or_resume, folder, config, len(store), world, start if isinstance(start, Start) else None)
        run = world.on_main(begin)
        done = train_run(run, store, world, stop, CheckpointOptions(keep, every), observers, compile)
    if not done:  # All processes were stopped together: that is no failure.
        raise Interrupted(f"Saved. Run the same again to resume: {run.folder.absolute()}")
    return run


@dataclass(frozen=True)
class _Request:
    """What the caller requested, before the images are known."""

    preset: str
    start: Start | Begun | None
    data: DataConfig
    seed: int
    conditional: bool
    network: NetworkConfig | type[NetworkConfig] | None
    settings: list[str]
    low_res: int | None = None
    """The factor by which the other image is smaller."""

    def configure(self, images: Store | ImageFacts) -> Config:
        """The run's config for these images."""
        data = replace(self.data, size=images.size, channels=images.channels)
        if isinstance(images, Store):
            data = replace(data, split=images.split)
        if self.start is None:
            config = configure(self.preset, images, data, self.seed, self.conditional, self.network)
        else:
            config = self.start.configure(images, data, self.seed, self.conditional)
        other = images.image_condition if isinstance(images, Store) else None
        table = images.table if isinstance(images, Store) else None
        config = replace(config, attributes=table and table.config, image_condition=other and other.config)
        untold = self.start is not None and not self.start.run.config.is_conditional
        if (table or other) and (untold or config.training.label_dropout == 0):
            # What is told of nothing has nothing to drop.
            config = replace(config, training=replace(config.training, label_dropout=TrainingConfig.label_dropout))
        return with_settings(config, self.settings)

    def check_before_images(self, world: World) -> None:
        """Raises ValueError for settings that fit no images at all: to know it after hours of decoding is too late."""
        # Where the images decide size and channels, take any that fit the network.
        recipe = RECIPES[self.preset]() if self.start is None else self.start.run.config
        size, channels = self.data.size or recipe.network.size, self.data.channels or recipe.network.image_channels
        batch = self.configure(ImageFacts(size, channels)).training.batch
        if self.data.size and self.low_res:
            small_size(self.data.size, self.low_res)
        if batch % world.size:
            raise ValueError(f"A batch of {batch} cannot be split over {world.size} processes.")


def _with_table(store: Store, path: Path, start: Start | Begun | None, config: DataConfig) -> Store:
    """The images with the table about them; numbers that the run to start from knew mean what they did there."""
    known = None if start is None else start.run.config.attributes

    def elsewhere() -> list[str]:
        if store.split == "all":  # So are those of a sequence.
            return []
        return [image.name for image in open_source(config.data, config.data_root, "all").images()]

    return replace(store, table=read_table(path, store.names, [name for name, _ in store.skipped], known, elsewhere))


def starting_point(
    from_run: RunLike,
    out: str | Path | None,
    preset: str | None,
    network: NetworkConfig | type[NetworkConfig] | None,
) -> Start | Begun | None:
    """The run to start from with its newest whole checkpoint, or None to train from scratch."""
    if from_run is None:
        return None
    if preset is not None or isinstance(network, NetworkConfig):
        raise ValueError("--from takes the run's own settings and network: leave out --preset and the network.")
    kind = network or UNetConfig
    try:
        run = as_run(from_run, kind)
        checkpoint = run.last_good()
        if checkpoint is None:
            raise FileNotFoundError(f"{run.folder.absolute()} has no whole checkpoint to start from.")
        return Start(run, checkpoint)
    except FileNotFoundError:
        begun = None if out is None else _begun(Path(out).expanduser(), kind)
        origin = None if begun is None else begun.run.config.origin
        if origin is None or Path(str(from_run)).name != Path(origin.run).name:
            raise
        return begun


def _begun(folder: Path, network: type[NetworkConfig]) -> Begun | None:
    """The run in `folder`, if it was begun from another one."""
    if not is_run(folder):
        return None
    run = open_run(folder, network)
    return Begun(run) if run.config.origin and run.checkpoints() else None


def _training_settings(
    images: int | str | None, minutes: float | None, batch: int | None, precision: Precision
) -> list[str]:
    """The options that are settings too, as settings."""
    settings = [f"training.precision={precision}"]
    if images is not None or minutes is not None:
        total_images = "null" if images is None else parse_count(images, "--images")
        total_minutes = "null" if minutes is None else minutes
        settings += [f"training.total_images={total_images}", f"training.total_minutes={total_minutes}"]
    return settings if batch is None else [*settings, f"training.batch={batch}"]


def _run_name(
    store: Store,
    preset: str,
    network: NetworkConfig | type[NetworkConfig] | None,
    start: Start | Begun | None,
) -> str:
    kind = network if isinstance(network, type) or network is None else type(network)
    own = [] if kind is None else [kind.__name__.removesuffix("Config").lower()]
    name = "-".join(dict.fromkeys([store.name, preset, *own, size_text(store.size)]))
    return name if start is None else f"{name}-from-{start.run.name}"


def _log_summary(folder: Path, store: Store, config: Config, world: World) -> None:
    classes = f"{len(config.class_names)} classes" if config.class_names else "no classes"
    images = f"{len(store):,} images, {size_text(store.size)} {CHANNELS[store.channels]}"
    training = config.training
    minutes = training.total_minutes
    budget = duration(60 * minutes) if minutes else f"{training.total_images:,} images"
    dtype = str(compute_dtype(world.device, training.precision)).removeprefix("torch.")
    processes = f", {world.size} processes" if world.size > 1 else ""
    log.info(f"run      {folder.absolute()}")
    log.info(f"data     {images}, {classes}, split {store.split}")
    if len(store) < COPIED_BELOW:
        log.info(f"         fewer than {COPIED_BELOW}: the model may only learn to copy them (docs/small-sets.md)")
    if config.attributes:
        log.info(f"told     {', '.join(map(str, config.attributes.columns))}")
    log.info(f"recipe   {config.preset}, seed {config.seed}, batch {training.batch}, {budget}")
    log.info(f"device   {world.device}, {dtype}{processes}")
