"""A model from elsewhere in our terms, and the run folder that it becomes."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from undiffuse.config import Config, OptimizerConfig, SamplingConfig, TrainingConfig, from_dict, to_json
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.store import DataConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import Run, create_run
from undiffuse.utils.files import atomic_path
from undiffuse.utils.terminal import log

PRESET = "imported"
"""Stands in the config of such a run where others name their recipe."""


@dataclass(frozen=True)
class ImportedModel:
    """What was found at a source: all that sampling needs."""

    origin: str
    """The absolute path, or the id on the Hub."""
    network: UNetConfig
    diffusion: DiffusionConfig
    sampling: SamplingConfig
    tensors: dict[str, Tensor]
    class_names: tuple[str, ...]
    hides_labels: bool
    """Whether the network was trained without labels now and then, which guidance needs."""


def config_of(found: ImportedModel) -> Config:
    """The config of a run that was not trained here: its images, augmentation and optimizer are not known.

    Raises:
        ValueError: there are no such images here, as of two channels.
    """
    size, channels = found.network.size, found.network.image_channels
    try:
        data = DataConfig(data=found.origin, split="all", size=size, channels=channels)
    except ValueError as error:
        raise ValueError(f"{found.origin} makes images that undiffuse does not: {error}") from error
    training = TrainingConfig() if found.hides_labels else TrainingConfig(label_dropout=0.0)
    config = Config(
        preset=PRESET,
        seed=0,
        data=data,
        data_content="",
        class_names=found.class_names,
        network=found.network,
        diffusion=found.diffusion,
        augmentation=AugmentationConfig(),
        optimizer=OptimizerConfig(),
        training=training,
        sampling=found.sampling,
    )
    return from_dict(json.loads(to_json(config)))  # What could not be read again must not be written.


def check_new(folder: Path) -> None:
    """Raises ValueError if there is something at `folder` already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder.absolute()} is there already: choose another place, or remove it.")


def save_run(found: ImportedModel, folder: Path) -> Run:
    """The run folder with the weights as its checkpoint of 0 images, written whole or not at all.

    Raises:
        ValueError: there is something at `folder`, or the model makes other images than we do.
    """
    check_new(folder)
    config = config_of(found)
    with atomic_path(folder) as temporary:
        run = create_run(temporary, config)
        # Only one set of weights came; both names of it are what every command expects.
        run.save(0, {"network": found.tensors, "average": found.tensors}, {"imported_from": found.origin}, keep=1)
    return Run(folder, config)


def describe(found: ImportedModel) -> None:
    """Says what was found, a line each."""
    network, diffusion, how = found.network, found.diffusion, found.sampling
    parameters = sum(tensor.numel() for tensor in found.tensors.values())
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}[network.image_channels]
    classes = f"{network.classes} classes" if network.classes else "no classes"
    variance = "learned" if diffusion.learned_variance else how.variance
    log.info(f"source   {found.origin}")
    log.info(f"network  {parameters:,} parameters, {network.size[0]}x{network.size[1]} {kind}, {classes}")
    log.info(f"noise    {diffusion.schedule} schedule of {diffusion.num_timesteps:,} levels, {variance} variance")
    log.info(f"predicts {diffusion.parametrization}; sampled with {how.sampler} in {how.steps:,} steps unless asked")
