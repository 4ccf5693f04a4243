"""Images while training: the same seeds every time, from the EMA of the weights and from the weights themselves."""

import time
from dataclasses import replace

import torch
from PIL import Image
from torch import nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.batches import split_held_out
from undiffuse.data.pixels import to_pixels
from undiffuse.data.store import Store
from undiffuse.report import grids
from undiffuse.runs.run import Run
from undiffuse.sampling.attributes import of_training_images
from undiffuse.sampling.labels import labels_for
from undiffuse.sampling.model import last, model_of, sample_steps
from undiffuse.training.observers import Event, Observer
from undiffuse.training.state import TrainingState
from undiffuse.utils.terminal import track

PREVIEWS = 5
"""Previews over the whole budget, evenly spread."""
IMAGES = 16
STEPS = 12

COST_FRACTION = 0.05
"""A preview waits until all of them together have taken no more than this fraction of the time spent training."""


class Previews(Observer):
    """Saves a preview whenever another fifth of the budget is spent; `progress` is the fraction spent before.

    Labels come in turn. Other images are those of the first held-out images of the `store`, or else training images.
    """

    def __init__(self, progress: float, store: Store):
        self.done, self.store = int(progress * PREVIEWS), store

    def begin(self, run: Run, state: TrainingState) -> None:
        self.run, self.spent, self.last = run, 0.0, 0.0
        self.began = time.monotonic()

    def step(self, event: Event) -> None:
        stopped = event.ends and event.progress < 1
        due = int(event.progress * PREVIEWS)
        if due > self.done and not (stopped or event.fails) and (event.ends or self._affordable()):
            self.done = due
            began = time.monotonic()
            save_previews(self.run, event, self.store)
            self.last = time.monotonic() - began
            self.spent += self.last

    def _affordable(self) -> bool:
        """Whether another preview as slow as the last one fits. The last of all, at the end, is always made."""
        return self.spent + self.last <= COST_FRACTION * (time.monotonic() - self.began)


def save_previews(run: Run, event: Event, store: Store) -> None:
    """Writes previews/<images>-ema.png and -network.png: where they differ much, the EMA is still young."""
    for name, network in (("ema", event.ema), ("network", event.network)):
        path = run.folder / "previews" / f"{event.images:012d}-{name}.png"
        # Before the end there is the bar of the training, and a terminal has room for one.
        grids.save_png(_preview(network, run, store, f"preview of the {name}" if event.ends else None), path)


def _preview(network: nn.Module, run: Run, store: Store, bar: str | None) -> Image.Image:
    """A grid of images; `bar` is what a progress bar of its own says, if there is to be one."""
    config, sampling = run.config, _quick(run.config)
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    model = model_of(network, config, device)
    seeds = range(IMAGES)
    if store.image_condition is not None:
        training, held_out = split_held_out(len(store), config.training.held_out_images)
        shown = (held_out if len(held_out) >= IMAGES else training)[:IMAGES]
        seeds, told = range(len(shown)), store.condition(shown)
    elif config.attributes:
        told = of_training_images(config, run, seeds)
    else:
        told = labels_for(model.class_names, seeds, None)
    # Another batch size would compile the network again, which takes longer than the preview.
    with torch.compiler.set_stance("force_eager"):
        steps = sample_steps(model, seeds, told, sampling)
        done = last(track(steps, bar, sampling.steps) if bar else steps)
    network.train(was_training)
    return grids.grid(to_pixels(done.x))


def _quick(config: Config) -> SamplingConfig:
    """Few steps, with the sampler that makes the most of them, in the precision of training."""
    sampling = config.sampling
    if config.diffusion.jumps:
        return replace(sampling, precision=config.training.precision)
    steps, precision = min(sampling.steps, STEPS), config.training.precision
    return replace(sampling, sampler="ipndm", sigmas="auto", steps=steps, precision=precision)
