"""Opening a run's model."""

from dataclasses import replace

import torch
from torch import Tensor

from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.sampling.model import Model, model_of
from undiffuse.utils.device import memory_format
from undiffuse.utils.terminal import log
from undiffuse.utils.world import World


def load_model(
    run: Run,
    device: torch.device | None = None,
    weights: str = "ema",
    world: World | None = None,
    images: int | None = None,
) -> Model:
    """The run's model, from its newest whole checkpoint, or the one nearest to so many `images`; of several processes
    the main one alone reads it.

    `weights` is "ema", or "network" for the weights that are being trained.

    Raises:
        FileNotFoundError: the run has no checkpoint that is whole.
    """
    world = world or World.alone(device)
    checkpoint = world.on_main(lambda: _newest(run) if images is None else _nearest(run, images))
    if world.is_main:
        _check_fit(run, tensors := checkpoint.tensors(weights))
    network = run.config.build_network()
    network.load_state_dict(world.share_tensors(tensors if world.is_main else {}))
    device = world.device
    network = network.to(device).to(memory_format=memory_format(device)).eval().requires_grad_(False)
    return replace(model_of(network, run.config, device), run=run, checkpoint=checkpoint, weights=weights)


def _check_fit(run: Run, tensors: dict[str, Tensor]) -> None:
    """Raises ValueError where the config claims another network than the weights are of, before any memory is taken."""
    if not isinstance(run.config.network, UNetConfig):
        return  # A network of the user's own need not know the meta device.
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in run.config.build_network().state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ValueError(f"{run.folder.absolute()} has a config.json that does not fit its weights: restore it.")


def _newest(run: Run) -> Checkpoint:
    checkpoint = run.last_good()
    if checkpoint is None:
        raise FileNotFoundError(f"{run.folder.absolute()} has no whole checkpoint: train it first, or for longer.")
    return checkpoint


def _nearest(run: Run, images: int) -> Checkpoint:
    for checkpoint in sorted(run.checkpoints(), key=lambda checkpoint: abs(checkpoint.images - images)):
        if checkpoint.fault(run.most_bytes) is None:
            log.info(f"{run.name}: the checkpoint after {checkpoint.images:,} images")
            return checkpoint
    return _newest(run)
