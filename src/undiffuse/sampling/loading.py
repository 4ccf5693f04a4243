"""Opening a run's model."""

from dataclasses import replace

import torch

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
    network = run.config.build_network()
    network.load_state_dict(world.share_tensors(checkpoint.tensors(weights) if world.is_main else {}))
    device = world.device
    network = network.to(device).to(memory_format=memory_format(device)).eval().requires_grad_(False)
    return replace(model_of(network, run.config, device), run=run, checkpoint=checkpoint, weights=weights)


def _newest(run: Run) -> Checkpoint:
    checkpoint = run.last_good()
    if checkpoint is None:
        raise FileNotFoundError(f"{run.folder.absolute()} has no whole checkpoint: train it first, or for longer.")
    return checkpoint


def _nearest(run: Run, images: int) -> Checkpoint:
    for checkpoint in sorted(run.checkpoints(), key=lambda checkpoint: abs(checkpoint.images - images)):
        if checkpoint.fault() is None:
            log.info(f"{run.name}: the checkpoint after {checkpoint.images:,} images")
            return checkpoint
    return _newest(run)
