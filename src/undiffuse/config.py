"""Everything that makes a run what it is, as frozen dataclasses that live as config.json in the run folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.store import DataConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.utils.names import GridName, Precision, SamplerName, VarianceName

VERSION = 1
"""Of config.json: raised when older programs would misread it."""


FROM_IMAGES = {
    "network.size": "--size",
    "network.image_channels": "--channels",
    "network.classes": "--unconditional",
}
"""Settings that follow from the images, and the options that choose them."""


def _check(name: str, value: object, good: bool, range: str) -> None:
    if not good:
        raise ValueError(f"{name} {value} is out of range: give {range}.")


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights move."""

    muon: bool = True
    """Muon for hidden weight matrices and convolutions, AdamW for the rest; otherwise AdamW for all."""
    learning_rate: float = 2e-3
    """At its highest."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's."""
    weight_decay: float = 0.0
    warmup_images: int = 4000
    """The learning rate rises linearly over this many images."""
    decay_fraction: float = 0.5
    """It falls linearly to 0 over this last share of the budget; 0 keeps it."""
    max_gradient_norm: float = 1.0
    """Longer gradients are cut to this length; 0 never cuts."""

    def __post_init__(self):
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "more than 0")
        _check("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        _check("warmup_images", self.warmup_images, self.warmup_images >= 0, "at least 0")
        _check("decay_fraction", self.decay_fraction, 0 <= self.decay_fraction <= 1, "from 0 to 1")
        _check("max_gradient_norm", self.max_gradient_norm, self.max_gradient_norm >= 0, "at least 0")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in what portions, and what is averaged."""

    total_images: int | None = None
    """The budget: images seen, each as often as it is shown. Either this or total_minutes."""
    total_minutes: float | None = 30.0
    """The budget as time spent training."""
    batch: int = 128
    """Images a step, over all processes."""
    microbatch: int = 128
    """At most this many images at once in a process; more are accumulated. Lower it when memory runs out."""
    ema_halflife_images: int = 500_000
    """Half-life of the averaged weights; never more than 5% of the images seen."""
    label_dropout: float = 0.1
    """Share of labels hidden in training, which makes guidance possible."""
    precision: Precision = "auto"
    """fp32, bf16 for what profits from it, or bf16 wherever the hardware has it (auto). Weights are always fp32."""
    log_batches: int = 10
    """One line of log.jsonl every so many batches."""

    def __post_init__(self):
        if (self.total_images is None) == (self.total_minutes is None):
            raise ValueError("A budget is either --images or --minutes: give one of them.")
        budget = self.total_images if self.total_minutes is None else self.total_minutes
        _check("budget", budget, budget is not None and budget > 0, "more than 0")
        for name in ("batch", "microbatch", "ema_halflife_images", "log_batches"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "more than 0")
        _check("label_dropout", self.label_dropout, 0 <= self.label_dropout <= 1, "from 0 to 1")


@dataclass(frozen=True)
class SamplingConfig:
    """How images are made unless one says otherwise."""

    sampler: SamplerName = "ipndm"
    """Each step costs one function evaluation but heun's, which cost two."""
    steps: int = 18
    """From noise to image."""
    guidance: float = 1.0
    """1 follows the label as trained; more exaggerates it, at the cost of variety."""
    clip: bool = False
    """Hold each estimate of the clean image in [-1, 1], as DDPM does."""
    grid: GridName = "auto"
    """Noise levels of the steps: the chain's, Karras et al.'s, or even in log SNR. auto: the chain's for ancestral and
    ddim where the model has one, else Karras et al.'s."""
    variance: VarianceName = "auto"
    """Of an ancestral step: Ho et al.'s beta tilde (small), beta (large), or learned. auto: learned, if it is."""
    eta: float = 0.0
    """Of ddim: 0 adds no noise, 1 as much as ancestral."""
    order: int = 4
    """Of ipndm and lms: from how many slopes they go on, 1 to 4."""
    churn: float = 0.0
    """Of heun: S_churn, the noise put in over all steps (Karras et al. 2022, Algorithm 2)."""
    churn_min: float = 0.05
    """The noise level from which churn puts noise in."""
    churn_max: float = 50.0
    """The noise level up to which it does."""
    churn_noise: float = 1.003
    """Standard deviation of that noise."""

    def __post_init__(self):
        _check("steps", self.steps, self.steps >= 1, "at least 1")
        _check("eta", self.eta, 0 <= self.eta <= 1, "from 0 to 1")
        _check("order", self.order, 1 <= self.order <= 4, "from 1 to 4")
        _check("churn", self.churn, self.churn >= 0, "at least 0")
        _check("churn_max", self.churn_max, not self.churn_max < self.churn_min, "at least churn_min")
        _check("churn_noise", self.churn_noise, self.churn_noise >= 0, "at least 0")


@dataclass(frozen=True)
class Recipe:
    """What a preset fixes: all but the data and the seed."""

    network: UNetConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    size: tuple[int, int] | None = None
    """The size to bring images to; their own if they share one up to 64, else 64x64, where this is None."""
    conditional: bool = True
    """Tell the network the class of each image, where images have one."""


@dataclass(frozen=True)
class Config:
    """A run. What rebuilds the model, what trained it, and on which images."""

    preset: str
    seed: int
    data: DataConfig
    """As asked for, with size and channels as found and the path made absolute."""
    data_content: str
    """A digest of the images themselves."""
    class_names: tuple[str, ...]
    network: UNetConfig
    diffusion: DiffusionConfig
    augmentation: AugmentationConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    sampling: SamplingConfig
    version: int = VERSION

    def __post_init__(self):
        if self.version != VERSION:
            raise ValueError(f"config version {self.version} is not {VERSION}, the one that this undiffuse reads")
        if self.sampling.variance == "learned" and not self.diffusion.learned_variance:
            raise ValueError("sampling.variance learned needs diffusion.objective hybrid or vlb, which learn it.")

    def build_network(self) -> UNet:
        """The network, untrained, with channels for the variance where it is learned."""
        return UNet(self.network, learned_variance=self.diffusion.learned_variance)


_adapter = TypeAdapter(Config)


def to_json(config: Config) -> str:
    return json.dumps(asdict(config), indent=2) + "\n"


def read_config(file: Path) -> Config:
    """The config in a run folder.

    Raises:
        ValueError: it is not one, or has a setting that this version does not know.
    """
    try:
        return from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError.
        raise ValueError(f"{file} is not the config of a run ({error}).") from error


def from_dict(values: Any) -> Config:
    """A config from JSON's types, each checked.

    Raises:
        ValueError: a value has the wrong type or is missing, or a setting is unknown; the first is named.
    """
    try:
        config = _adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "config"
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
    unknown = _unknown(values, asdict(config))
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]}")
    for name, value in flat(config).items():
        # Python's JSON reads NaN and 1e999; no setting means either.
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name}: {number} is no finite number")
    return config


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """The config with `--set` applied: each "network.dropout=0.2", the value in JSON or a bare word.

    Raises:
        ValueError: there is no such setting, or the value does not fit.
    """
    values = json.loads(to_json(config))
    for setting in settings:
        path, equals, text = setting.partition("=")
        *groups, name = path.split(".")
        owner = values
        for group in groups:
            owner = owner.get(group) if isinstance(owner, dict) else None
        if not equals or not groups or not isinstance(owner, dict) or name not in owner:
            raise ValueError(f"--set {setting}: write GROUP.NAME=VALUE with a name that --dry-run lists.")
        if groups == ["data"] or path in FROM_IMAGES:
            raise ValueError(f"--set {setting}: use {FROM_IMAGES.get(path, 'the options for data')} instead.")
        try:
            owner[name] = json.loads(text)
        except ValueError:
            owner[name] = text
    return from_dict(values)


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that differ by their dotted names, each with its value in the old and in the new config."""
    before, after = flat(old), flat(new)
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def flat(config: Config) -> dict[str, Any]:
    """All settings by their dotted names, the values as JSON has them."""
    return _flat(json.loads(to_json(config)))


def _unknown(values: dict[str, Any], known: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted names in `values` that are not in `known`."""
    unknown = []
    for name, value in values.items():
        if name not in known:
            unknown.append(f"{prefix}{name}")
        elif isinstance(known[name], dict):
            unknown += _unknown(value, known[name], f"{prefix}{name}.")
    return unknown


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
