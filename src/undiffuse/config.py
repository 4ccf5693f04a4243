"""Everything that defines a run, as frozen dataclasses that are saved as config.json in the run folder."""

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import nn

from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.columns import AttributesConfig
from undiffuse.data.image_condition import ImageConditionConfig
from undiffuse.data.nonleaky import NUMBERS
from undiffuse.data.patches import patch_sizes
from undiffuse.data.store import DataConfig
from undiffuse.diffusion.recipe import DiffusionConfig, check_sigmas
from undiffuse.diffusion.sampler_table import SAMPLERS, options
from undiffuse.networks.classes import ClassChange
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.old_names import current, current_name, current_value
from undiffuse.utils.conditions import ConditionSizes
from undiffuse.utils.files import read_small
from undiffuse.utils.names import Precision, SamplingPrecision
from undiffuse.utils.text import printable, size_text
from undiffuse.utils.validation import STRICT, sentence

VERSION = 1
"""Version of config.json: raise it when older programs would misread a new one."""

MAX_CONFIG_BYTES = 16 * 2**20
"""No config is longer, with however many classes."""

FROM_IMAGES = {
    "network.size": "--size",
    "network.image_channels": "--channels",
    "network.classes": "--unconditional",
}
"""Settings that follow from the images, and the options that choose them."""

Positive = Annotated[float, Field(gt=0)]
Nonnegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """How the weights are updated."""

    muon: bool = True
    """Muon for hidden weight matrices and convolutions, AdamW for the rest; otherwise AdamW for all."""
    learning_rate: Positive = 2e-3
    """At its peak."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """AdamW's."""
    weight_decay: Nonnegative = 0.0
    warmup_images: Annotated[int, Field(ge=0)] = 4000
    """The learning rate rises linearly over this many images."""
    decay_fraction: Fraction = 0.5
    """It falls linearly to 0 over this last fraction of the budget; 0 keeps it constant."""
    max_gradient_norm: Nonnegative = 1.0
    """Gradients with a larger norm are scaled down to it; 0 never clips."""


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """How long to train, in what batches, and which weights are kept."""

    total_images: Count | None = None
    """The budget in images seen, repeats included. Set either this or total_minutes."""
    total_minutes: Positive | None = 30.0
    """The budget as time spent training."""
    batch: Count = 128
    """Images per step, over all processes."""
    microbatch: Count | None = None
    """At most this many images at once in a process; gradients accumulate over more. Lower it if memory runs out.
    null: the fastest on a CPU, measured when the run begins, and 128 elsewhere."""
    ema_halflife_images: Count = 500_000
    """Half-life of the EMA of the weights; never more than 5% of the images seen."""
    label_dropout: Fraction = 0.1
    """Fraction of labels that are dropped in training, which makes guidance possible."""
    held_out_images: Annotated[int, Field(ge=0)] | None = None
    """Images that are never trained on, so that their loss tells learning from memorizing. null: 5% of the images, at
    most 1,000, where there are at least 1,000."""
    precision: Precision = "auto"
    """Of the operations that profit from it: fp32, bf16, fp16 with a scaled loss, or auto, which is bf16 where the
    hardware has it and fp16 on older GPUs. Weights are fp32."""
    activation_checkpointing: bool = False
    """Compute the features inside of the network's blocks again in the backward pass, instead of keeping them: less
    memory for more time, and the same results."""
    shard_weights: bool = False
    """Split the weights, their EMA, the gradients and the optimizer's state over the processes (FSDP2), for networks
    that do not fit into one GPU. With one process it has no effect."""
    log_batches: Count = 10
    """Batches from one line of log.jsonl to the next."""

    def __post_init__(self) -> None:
        if (self.total_images is None) == (self.total_minutes is None):
            raise ValueError("A budget is either --images or --minutes: give one of them.")


def with_sampler_options(cls: type) -> Any:
    """Makes the class a config that also has every option in the table of samplers as a field."""
    for name, option in options().items():
        cls.__annotations__[name] = option.type
        setattr(cls, name, option.default)
    return dataclass(frozen=True, config=STRICT)(cls)


@with_sampler_options
class SamplingConfig:
    """How images are sampled by default. The options of the samplers (`diffusion.sampler_table`) are fields too."""

    sampler: Literal[*SAMPLERS] = "ipndm"  # ty: ignore[invalid-type-form]
    """A row of `SAMPLERS`."""
    steps: Count = 18
    """Steps from noise to image; each costs one function evaluation, with heun two."""
    guidance: float = 1.0
    """1 follows the label as trained; more exaggerates it, at the cost of variety."""
    guidance_interval: tuple[Nonnegative, Positive] | None = None
    """Guidance acts at noise levels above the first and up to the second; null: at all levels."""
    precision: SamplingPrecision = "tf32"
    """Of convolutions and matrix products: tf32, which is fp32 but on GPUs from Ampere on; fp32 everywhere; bf16 or
    fp16, about twice as fast where the hardware has it; or auto, which takes the one it has."""
    clip: bool = False
    """Clip each predicted clean image to [-1, 1], as DDPM does."""
    sigmas: Annotated[str | tuple[float, ...], PlainValidator(check_sigmas)] = "auto"
    """Noise levels of the steps: the discrete schedule's, Karras et al.'s, evenly spaced in log SNR, those of the
    sampler consistency, those that tune-sampler found, or the falling levels themselves. auto: the tuned ones where
    there are any for these options, else the discrete schedule's for ancestral and ddim where the model has one, its
    own for consistency, Karras et al.'s otherwise."""

    def __post_init__(self) -> None:
        if self.guidance_interval and self.guidance_interval[0] >= self.guidance_interval[1]:
            low, high = self.guidance_interval
            raise ValueError(f"guidance_interval {low:g} to {high:g} has no noise levels: give the lower one first.")
        for sampler in SAMPLERS.values():
            sampler.check(self)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """What defines a training run apart from the images and the seed."""

    network: NetworkConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.sampling.variance == "learned" and not self.diffusion.learned_variance:
            raise ValueError("sampling.variance learned needs diffusion.objective hybrid or vlb, which learn it.")
        if self.augmentation.patches:
            self._check_patches()

    def _check_patches(self) -> None:
        """Raises ValueError if the network cannot take them."""
        for size in patch_sizes(self.network.size):
            try:
                self.network.resized(size)
            except ValueError as error:
                raise ValueError(
                    "augmentation.patches trains on halves and quarters of the images' sides too: set it to 0, or "
                    f"choose a --size whose quarter fits this network ({size_text(size)} does not)."
                ) from error


@dataclass(frozen=True, config=STRICT)
class Origin:
    """The run whose EMA weights training started from."""

    run: str
    """Its folder, at that time."""
    images: Annotated[int, Field(ge=0)]
    """Seen in that run, and in those that it started from."""
    digest: str
    """The SHA-256 of the weights' file."""
    class_names: tuple[str, ...] | None = None
    """Its classes; null: older versions did not record them, and they are those of this run."""
    learning_rate: Positive | None = None
    """The peak in the first of those runs, which was trained from scratch; null: not recorded."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Recipe):
    """A run: its recipe, images and seed."""

    preset: str
    seed: int
    data: DataConfig
    """As requested, with the size and channels of the images, and the path made absolute."""
    data_content: str
    """A digest of the images themselves."""
    class_names: tuple[str, ...]
    origin: Origin | None = None
    """null: trained from scratch."""
    attributes: AttributesConfig | None = None
    """Numbers and categories that the network is told of; null: none."""
    image_condition: ImageConditionConfig | None = None
    """Another image that the network is told of; null: none."""
    version: int = VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version != VERSION:
            raise ValueError(f"config version {self.version} is not {VERSION}, the one that this undiffuse reads")

    @property
    def class_change(self) -> ClassChange | None:
        """What became of the classes of the run that training started from, if it did."""
        if self.origin is None:
            return None
        before = self.origin.class_names
        return ClassChange(self.class_names if before is None else before, self.class_names)

    @property
    def condition_sizes(self) -> ConditionSizes:
        """What the network is told besides the label."""
        numbers, categories = (self.attributes.numbers, self.attributes.categories) if self.attributes else ([], [])
        return ConditionSizes(
            augmentation=NUMBERS if self.augmentation.nonleaky else 0,
            numbers=len(numbers),
            categories=tuple(len(column.values) for column in categories),
            image_channels=self.image_condition.channels if self.image_condition else 0,
            coordinates=self.augmentation.patches > 0,
        )

    @property
    def condition(self) -> str | None:
        """What `train --condition` takes to resume; None: nothing, or a table that an older version did not record."""
        if self.image_condition:
            return str(self.image_condition)
        return self.attributes.table if self.attributes else None

    @property
    def is_conditional(self) -> bool:
        """Whether there is anything that guidance could strengthen."""
        return bool(self.class_names or self.attributes or self.image_condition)

    def build_network(self) -> nn.Module:
        """The network, untrained, with channels for the variance where it is learned, and all conditions that it gets.

        Raises:
            ValueError: a network of the user's own does not take them.
        """
        return self.network.build_for(self.condition_sizes, learned_variance=self.diffusion.learned_variance)


def to_json(config: Config) -> str:
    """The config as the text of config.json. `from_dict` reads it back."""
    values = asdict(config)
    if type(config.network) is not UNetConfig:
        values["network"] = {"type": type(config.network).__name__, **values["network"]}
    sections = [each.name for each in fields(Recipe)]
    ordered = {name: values[name] for name in [*(name for name in values if name not in sections), *sections]}
    return json.dumps(ordered, indent=2) + "\n"


def read_config(file: Path, network: type[NetworkConfig] = UNetConfig) -> Config:
    """The config in a run folder; `network` is the class of its network's config.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a config, or has a setting that this version does not know.
    """
    try:
        config = from_dict(json.loads(read_small(file, MAX_CONFIG_BYTES)), network)
    except RecursionError as error:
        raise ValueError(f"{file.absolute()} is not the config of a run (it is nested too deeply).") from error
    except ValueError as error:  # UnicodeDecodeError is one too.
        raise ValueError(f"{file.absolute()} is not the config of a run ({printable(str(error))}).") from error
    return replace(config, class_names=tuple(map(printable, config.class_names)))


def from_dict(values: Any, network: type[NetworkConfig] = UNetConfig) -> Config:
    """A config from JSON's types, each checked; old names are understood.

    Raises:
        ValueError: a value is wrong or missing, or a setting is unknown; the first is named.
    """
    if not isinstance(values, dict):
        raise ValueError("config is not a JSON object")
    values = current(values)
    for section in fields(Recipe):
        if section.name not in values:  # A recipe has defaults, but a run says what it is.
            raise ValueError(f"{section.name} is missing")
    if isinstance(values["training"], dict):
        values["training"].setdefault("held_out_images", 0)  # Older runs trained on all images.
    if isinstance(values.get("network"), dict):
        values["network"] = _read_network(values["network"], network)
    try:
        config = _adapter.validate_python(values)
    except ValidationError as error:
        raise ValueError(sentence(error)) from error
    for name, value in flat(config).items():
        # Of configs that are not pydantic's: Python's JSON reads NaN and 1e999, but no setting means either.
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name} {number} is not a finite number")
    return config


_adapter = TypeAdapter(Config)


def _read_network(values: dict[str, Any], own: type[NetworkConfig]) -> NetworkConfig:
    """The network's config: a `UNetConfig`, or the user's own class if `values` name it."""
    name = values.get("type", UNetConfig.__name__)
    classes = [each for each in (UNetConfig, own) if each.__name__ == name]
    if not classes:
        raise ValueError(
            f"network: this run has a network of its own, {name}: pass its class, "
            f"as in undiffuse.load(run, network={name})"
        )
    try:
        return TypeAdapter(classes[-1]).validate_python({key: values[key] for key in values if key != "type"})
    except ValidationError as error:
        raise ValueError(sentence(error, "network")) from error


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """The config with `--set` applied: each "network.dropout=0.2", the value in JSON or a bare word.

    Raises:
        ValueError: there is no such setting, or the value does not fit.
    """
    values = json.loads(to_json(config))
    for setting in settings:
        path, equals, text = setting.partition("=")
        group, _, old_name = path.partition(".")
        name, owner = current_name(old_name, group), values.get(group)
        if not equals or not isinstance(owner, dict) or name not in owner or f"{group}.{name}" == "network.type":
            hint = _like(path, values)
            raise ValueError(f"--set {setting}: write GROUP.NAME=VALUE with a name that --dry-run lists{hint}")
        if group == "data" or path in FROM_IMAGES:
            raise ValueError(f"--set {setting}: use {FROM_IMAGES.get(path, 'the options for data')} instead.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        owner[name] = current_value(f"{group}.{name}", value)
    return from_dict(values, type(config.network))


def _like(path: str, values: dict[str, Any]) -> str:
    """How the sentence about a setting that does not exist ends: with those that may have been meant."""
    known = [f"{group}.{name}" for group, owner in values.items() if isinstance(owner, dict) for name in owner]
    known = [name for name in known if not name.startswith("data.") and name not in ("network.type", *FROM_IMAGES)]
    named = [name for name in known if path and name.split(".")[1] == path.rpartition(".")[2]]
    near = named or difflib.get_close_matches(path, known, 1, 0.75)
    return f"; did you mean {' or '.join(near)}?" if near else "."


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by their dotted names, with their values in the old and the new config."""
    before, after = flat(old), flat(new)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: (before.get(name), after.get(name)) for name in changed}


def flat(config: Config) -> dict[str, Any]:
    """All settings by their dotted names, with values as JSON has them."""
    return _flat(json.loads(to_json(config)))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
