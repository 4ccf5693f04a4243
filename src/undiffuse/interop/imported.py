"""A model from another program in undiffuse's terms, and the run folder made of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from undiffuse.config import Config, OptimizerConfig, SamplingConfig, TrainingConfig, from_dict, to_json
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.store import DataConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop.settings import reason
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import Run, create_run
from undiffuse.utils.files import atomic_path
from undiffuse.utils.terminal import log
from undiffuse.utils.text import CHANNELS, size_text

PRESET = "imported"
"""What the config of such a run has in place of a preset's name."""


@dataclass(frozen=True)
class ImportedModel:
    """A model that was trained elsewhere: all that sampling needs."""

    origin: str
    """The absolute path, or the id on the Hub."""
    network: UNetConfig
    diffusion: DiffusionConfig
    sampling: SamplingConfig
    tensors: dict[str, Tensor]
    class_names: tuple[str, ...]
    trained_unlabeled: bool
    """Whether labels were sometimes dropped in training, which guidance needs."""


def config_of(model: ImportedModel) -> Config:
    """The config of a run that was not trained here: its images and augmentation are unknown, its optimizer assumed.

    Raises:
        ValueError: undiffuse has no images like the model's, such as images of two channels.
    """
    try:
        # pydantic checks that there are images of so many channels.
        channels: Any = model.network.image_channels
        data = DataConfig(data=model.origin, split="all", size=model.network.size, channels=channels)
    except ValueError as error:
        raise ValueError(f"{model.origin} makes images that undiffuse does not support: {reason(error)}") from error
    config = Config(
        preset=PRESET,
        seed=0,
        data=data,
        data_content="",
        class_names=model.class_names,
        network=model.network,
        diffusion=model.diffusion,
        augmentation=AugmentationConfig(),
        # What such models are trained with (Ho et al. 2020, appendix B): training from this run goes by it.
        optimizer=OptimizerConfig(muon=False, learning_rate=2e-4, betas=(0.9, 0.999)),
        training=TrainingConfig() if model.trained_unlabeled else TrainingConfig(label_dropout=0.0),
        sampling=model.sampling,
    )
    return from_dict(json.loads(to_json(config)))  # What could not be read again must not be written.


def check_free(folder: Path) -> None:
    """Raises ValueError if there is already something at `folder`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder.absolute()} already exists: choose another place, or remove it.")


def save_run(model: ImportedModel, folder: Path) -> Run:
    """The run folder with the weights as its checkpoint at 0 images, written whole or not at all.

    Raises:
        ValueError: there is something at `folder`, or undiffuse has no images like the model's.
    """
    check_free(folder)
    config = config_of(model)
    with atomic_path(folder) as temporary:
        run = create_run(temporary, config)
        # There is only one set of weights, but every command expects both names.
        run.save(0, {"network": model.tensors, "ema": model.tensors}, {"imported_from": model.origin}, keep=1)
    return Run(folder, config)


def log_summary(model: ImportedModel) -> None:
    """Notices of what the model is, one line each."""
    network, diffusion, sampling = model.network, model.diffusion, model.sampling
    parameters = sum(tensor.numel() for tensor in model.tensors.values())
    channels = CHANNELS.get(network.image_channels, f"{network.image_channels} channels")
    classes = f"{network.classes} classes" if network.classes else "no classes"
    variance = "learned" if diffusion.learned_variance else sampling.variance
    log.info(f"source   {model.origin}")
    log.info(f"network  {parameters:,} parameters, {size_text(network.size)} {channels}, {classes}")
    log.info(f"noise    {diffusion.schedule} schedule, {diffusion.num_timesteps:,} timesteps, {variance} variance")
    log.info(f"predicts {diffusion.parametrization}")
    log.info(f"sampler  {sampling.sampler} in {sampling.steps:,} steps, by default")
