"""Which run, and which of its weights: what the functions of the API accept."""

from pathlib import Path
from typing import Literal

from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.find import find_guide, find_run
from undiffuse.runs.run import Run, open_run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.utils.world import World

RunLike = Run | Model | str | Path | None

GuideLike = RunLike
"""A run, as for sampling; "RUN@IMAGES" for its checkpoint nearest to so many images; or None for no guide."""

Weights = Literal["ema", "network", "average"]
"""The EMA of the weights or the weights that are being trained; average is the old word for ema."""


def as_run(run: RunLike, network: type[NetworkConfig] = UNetConfig) -> Run:
    """The run: itself, in a folder, of a name under runs/, of a Model, or the newest one for None.

    `network` is the config class of a network of your own.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: its config cannot be read, or the model was not loaded from a run.
    """
    if isinstance(run, Run):
        return run
    if isinstance(run, Model):
        return run.origin[0]
    return open_run(find_run(None if run is None else str(run)), network)


def guide_of(run: RunLike, guide: GuideLike) -> GuideLike:
    """The guide that is given, or else the one that a model has already."""
    return run.guide if guide is None and isinstance(run, Model) else guide


def with_guide(
    model: Model, guide: GuideLike, world: World | None = None, network: type[NetworkConfig] = UNetConfig
) -> Model:
    """The model with its guide; the main process alone reads it.

    `network` is the config class of a network of your own, if the guide has one.

    Raises:
        FileNotFoundError: there is no such run or checkpoint.
        ValueError: the guide makes other images, or has other classes.
    """
    if guide is None or isinstance(guide, Model):
        return model if guide is None else model.guided_by(guide)
    world = world or World.alone(model.device)
    name, images = (guide, None) if isinstance(guide, Run) else find_guide(str(guide))
    run = world.on_main(lambda: as_run(name, network))
    return model.guided_by(load_model(run, world=world, images=images))


def checkpoint_part(weights: str) -> str:
    """The part of a checkpoint that has these weights.

    Raises:
        ValueError: there are no such weights.
    """
    if weights not in ("ema", "network", "average"):
        raise ValueError(f"--weights {weights} does not exist: choose ema or network.")
    return "ema" if weights == "average" else weights
