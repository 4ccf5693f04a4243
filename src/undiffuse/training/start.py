"""Training that starts from another run: its settings for these images, and its EMA weights before the first step."""

from dataclasses import dataclass, replace

from torch import Tensor

from undiffuse.config import Config, OptimizerConfig, Origin, TrainingConfig
from undiffuse.data.columns import AttributesConfig, CategoryColumn
from undiffuse.data.store import DataConfig, Store
from undiffuse.networks.classes import ClassChange
from undiffuse.networks.conditions import KeptColumns
from undiffuse.presets import ImageFacts
from undiffuse.runs.run import Checkpoint, Run, Tensors
from undiffuse.utils.terminal import log
from undiffuse.utils.text import CHANNELS, plural

FINE_TUNING_RATE = 1 / 3
"""The learning rate on other images than the source's, as a fraction of that of training from scratch."""

FINE_TUNING_WARMUP_IMAGES = 2000
"""At most; what trained on hundreds of millions of images may have warmed up longer than fine-tuning takes."""


@dataclass(frozen=True)
class Start:
    """A run to start from, and which of its checkpoints."""

    run: Run
    checkpoint: Checkpoint

    def configure(self, images: Store | ImageFacts, data: DataConfig, seed: int, conditional: bool) -> Config:
        """The source's config fitted to these images: a run that starts from the weights in its checkpoint.

        Raises:
            ValueError: the images have other channels than the source's, or a size that its network cannot take.
        """
        source, origin = self.run.config, self.run.config.origin
        first_rate = source.optimizer.learning_rate
        if origin and origin.learning_rate:
            first_rate = origin.learning_rate
        same_images = images.content == source.data_content
        config = _fitted(self.run, images, data, seed, conditional)
        return replace(
            config,
            optimizer=source.optimizer if same_images else _fine_tuning(source.optimizer, first_rate),
            training=_training(source, config.class_names),
            origin=Origin(
                run=str(self.run.folder.absolute()),
                images=self.checkpoint.images + (origin.images if origin else 0),
                digest=self.checkpoint.digest("ema"),
                class_names=source.class_names,
                learning_rate=first_rate,
            ),
        )


@dataclass(frozen=True)
class Begun:
    """A run that was begun from another, which is gone: the same command goes on without it."""

    run: Run

    def configure(self, images: Store | ImageFacts, data: DataConfig, seed: int, conditional: bool) -> Config:
        """As `Start.configure` with the run that is gone."""
        return _fitted(self.run, images, data, seed, conditional)


def weights_for(config: Config, start: Start) -> dict[str, Tensor]:
    """The EMA weights to start from, fitted to the config's classes, in fp32 as training needs them.

    Raises:
        ValueError: they do not fit the config's network; the first that does not is named.
    """
    source = start.run.config
    classes = ClassChange(source.class_names, config.class_names, source.training.label_dropout > 0)
    found = {name: tensor.float() for name, tensor in start.checkpoint.tensors("ema").items()}
    weights = config.network.adapted(found, classes, config.condition_sizes, _kept(source, config))
    network = config.build_network().state_dict()

    def shape(tensor: Tensor | None) -> str:
        return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"

    for name in {**network, **weights}:
        ours, theirs = shape(network.get(name)), shape(weights.get(name))
        if ours != theirs:
            raise ValueError(
                f"The weights do not fit this network ({name} is {theirs} there and {ours} here): leave out the --set "
                "that changes the network's shape."
            )
    return weights


def _kept(source: Config, config: Config) -> KeptColumns:
    """The columns of the source's table that the config's has too, by name, and their values; and the other image."""
    ours, theirs = config.image_condition, source.image_condition
    image = ours is not None and theirs is not None and ours.kind == theirs.kind
    if source.attributes is None or config.attributes is None:
        return KeptColumns(image=image)

    def places(of: Config) -> tuple[list[str], list[tuple[str, str]]]:
        assert of.attributes is not None
        values = [(column.name, value) for column in of.attributes.categories for value in column.values]
        return [column.name for column in of.attributes.numbers], values

    (numbers, values), (new_numbers, new_values) = places(source), places(config)
    return KeptColumns(
        tuple(numbers.index(each) if each in numbers else -1 for each in new_numbers),
        tuple(values.index(each) if each in values else -1 for each in new_values),
        image,
    )


def log_start(start: Start, config: Config) -> None:
    """Notices of what the run takes from the one that it starts from."""
    source, origin, classes = start.run.config, config.origin, config.class_change
    if origin is None or classes is None:
        return
    kept = "its classes" if classes.before == classes.after else f"{classes}"
    log.info(f"from     {start.run.name}, {origin.images:,} images: {kept}")
    _log_table(source.attributes, config.attributes)
    before, after = source.image_condition, config.image_condition
    if before is not None and after is None:
        log.info(f"         without its other images: --condition {before} would keep them")
    elif before is not None and after is not None and before.kind != after.kind:
        log.info(f"         another kind of other images, to be learned anew: {after}, there {before}")
    elif before is not None and after is not None and before.low_res != after.low_res:
        log.info(f"         --condition {after}, there {before}")
    theirs, ours = source.optimizer.learning_rate, config.optimizer.learning_rate
    if config.data_content != source.data_content:
        log.info(
            f"         other images: learning rate {ours:.3g}, there {theirs:.3g}; --set optimizer.learning_rate=... "
            "changes it"
        )


def _log_table(before: AttributesConfig | None, after: AttributesConfig | None) -> None:
    """What becomes of the columns, and of the words in those that stay."""
    if before is None:
        return
    if after is None:
        log.info("         without its table: give --condition to go on with one")
        return
    theirs = {(type(column), column.name): column for column in before.columns}
    ours = {(type(column), column.name): column for column in after.columns}
    kept = [name for kind, name in ours if (kind, name) in theirs]
    new, dropped = (
        [name for kind, name in one if (kind, name) not in two] for one, two in ((ours, theirs), (theirs, ours))
    )
    changes = [f"{which} ({', '.join(names)})" for which, names in (("new", new), ("dropped", dropped)) if names]
    for column in after.categories:
        known = theirs.get((CategoryColumn, column.name))
        if isinstance(known, CategoryColumn) and known.values != column.values:
            words = len(set(column.values) - set(known.values)), len(set(known.values) - set(column.values))
            changes.append(f"words of {column.name}: {words[0]:,} new, {words[1]:,} dropped")
    text = ", ".join([f"{plural(len(kept), 'column')} kept", *changes])
    log.info(f"         {text if changes else 'its columns'}")


def save_start(run: Run, weights: Tensors) -> None:
    """Writes the weights as the run's first checkpoint: from then on it does not need the run that they are from."""
    counters = {"seconds": 0.0, "skipped": 0, "skipped_in_a_row": 0}
    run.save(0, {"network": weights, "ema": weights}, counters, keep=1)


def _fitted(run: Run, images: Store | ImageFacts, data: DataConfig, seed: int, conditional: bool) -> Config:
    """The run's config with all that follows from the images."""
    network = run.config.network
    if images.channels != network.image_channels:
        raise ValueError(
            f"{run.name} was trained on {CHANNELS[network.image_channels]} images: give --channels "
            f"{network.image_channels}."
        )
    class_names = images.class_names if conditional else ()
    return replace(
        run.config,
        seed=seed,
        data=data,
        data_content=images.content,
        class_names=class_names,
        network=replace(network.resized(images.size), classes=len(class_names)),
    )


def _fine_tuning(optimizer: OptimizerConfig, first_rate: float) -> OptimizerConfig:
    """Small steps keep what the other images taught. The rate is not lowered again in a run that starts from this."""
    warmup = min(optimizer.warmup_images, FINE_TUNING_WARMUP_IMAGES)
    return replace(optimizer, learning_rate=FINE_TUNING_RATE * first_rate, warmup_images=warmup)


def _training(source: Config, class_names: tuple[str, ...]) -> TrainingConfig:
    """What never had labels says nothing about how many to drop."""
    if source.class_names or not class_names:
        return source.training
    return replace(source.training, label_dropout=TrainingConfig.label_dropout)
