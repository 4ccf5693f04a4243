"""Images while training: the same seeds every time, from the EMA of the weights and from the weights themselves."""

from dataclasses import replace

from PIL import Image
from torch import nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.report import grids
from undiffuse.runs.run import Run
from undiffuse.sampling.labels import labels_for
from undiffuse.sampling.model import last, model_of, sample_steps
from undiffuse.training.observers import Event, Observer
from undiffuse.training.state import TrainingState

PREVIEWS = 5
"""Previews over the whole budget, evenly spread."""
IMAGES = 16
STEPS = 12


class Previews(Observer):
    """Saves a preview whenever another fifth of the budget is spent; `progress` is the fraction spent before."""

    def __init__(self, progress: float):
        self.done = int(progress * PREVIEWS)

    def begin(self, run: Run, state: TrainingState) -> None:
        self.run = run

    def step(self, event: Event) -> None:
        stopped = event.ends and event.progress < 1
        due = int(event.progress * PREVIEWS)
        if due > self.done and not (stopped or event.fails):
            self.done = due
            save_previews(self.run, event)


def save_previews(run: Run, event: Event) -> None:
    """Writes previews/<images>-ema.png and -network.png: where they differ much, the EMA is still young."""
    for name, network in (("ema", event.ema), ("network", event.network)):
        path = run.folder / "previews" / f"{event.images:012d}-{name}.png"
        grids.save_png(_preview(network, run.config), path)


def _preview(network: nn.Module, config: Config) -> Image.Image:
    was_training = network.training
    network.eval()
    model = model_of(network, config, next(network.parameters()).device)
    seeds = range(IMAGES)
    labels = labels_for(model.class_names, seeds, None)
    done = last(sample_steps(model, seeds, labels, _quick(config.sampling)))
    network.train(was_training)
    return grids.grid(to_pixels(done.x))


def _quick(sampling: SamplingConfig) -> SamplingConfig:
    """Few steps, with the sampler that makes the most of them."""
    return replace(sampling, sampler="ipndm", sigmas="auto", steps=min(sampling.steps, STEPS))
