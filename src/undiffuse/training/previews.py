"""Images while training: the same seeds every time, from the averaged weights and from the raw ones."""

from dataclasses import replace

from PIL import Image
from torch import nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.report import grids
from undiffuse.runs.run import Run
from undiffuse.sampling.model import labels_for, last, model_of, sample
from undiffuse.training.loop import TrainingState
from undiffuse.utils.world import World

IMAGES = 16
STEPS = 12


def save_previews(run: Run, state: TrainingState, world: World) -> None:
    """Writes previews/<images>-average.png and -network.png: where they differ much, the average is still young."""
    for name, network in (("average", state.average), ("network", state.network)):
        path = run.folder / "previews" / f"{state.images:012d}-{name}.png"
        grids.save_png(_preview(network, run.config, world), path)


def _preview(network: nn.Module, config: Config, world: World) -> Image.Image:
    was_training = network.training
    network.eval()
    model = model_of(network, config, world.device)
    seeds = range(IMAGES)
    done = last(sample(model, seeds, labels_for(model, seeds, None), _quick(config.sampling)))
    network.train(was_training)
    return grids.grid(to_pixels(done.x))


def _quick(how: SamplingConfig) -> SamplingConfig:
    """In few steps, with the sampler that shows most in them."""
    return replace(how, sampler="ipndm", grid="auto", steps=min(how.steps, STEPS))
