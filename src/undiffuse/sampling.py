"""From a run to pictures: the model, the noise of each seed, and the sampler's steps."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.device import state_dtype
from undiffuse.diffusion import samplers
from undiffuse.diffusion.denoiser import NO_LABEL, Denoise, clipped, denoiser, guided
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.samplers import Step
from undiffuse.networks.unet import UNet
from undiffuse.randomness import ImageRandomness
from undiffuse.runs import Checkpoint, Run


@dataclass(frozen=True)
class Model:
    """What sampling needs of a trained model."""

    denoise: Denoise
    diffusion: DiffusionConfig
    shape: tuple[int, int, int]
    """(channels, height, width) of a picture."""
    class_names: tuple[str, ...]
    device: torch.device


def model_of(network: nn.Module, config: Config, device: torch.device) -> Model:
    """The model around a network that is on `device` already."""
    shape = config.network.image_channels, *config.network.size
    return Model(
        denoise=denoiser(network, config.diffusion.coefficients()),
        diffusion=config.diffusion,
        shape=shape,
        class_names=config.class_names,
        device=device,
    )


def load_model(run: Run, device: torch.device, weights: str, say: Callable[[str], object]) -> tuple[Model, Checkpoint]:
    """The run's model, and the last good checkpoint, which it was read from.

    `weights` is "average" for the moving average, "network" for the weights that are being trained.

    Raises:
        FileNotFoundError: the run has no checkpoint that is whole.
    """
    checkpoint = run.last_good(say)
    if checkpoint is None:
        raise FileNotFoundError(f"{run.folder.absolute()} has no whole checkpoint: train it first, or for longer.")
    network = UNet(run.config.network)
    network.load_state_dict(checkpoint.tensors(weights))
    network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return model_of(network, run.config, device), checkpoint


def sample(model: Model, seeds: Sequence[int], labels: Sequence[int] | None, how: SamplingConfig) -> Iterator[Step]:
    """The steps of one batch, a picture a seed. A picture depends on its seed and label, not on the rest of the batch.

    Raises:
        ValueError: the number of steps does not fit the model's chain.
    """
    # One generator an image, on the CPU: the same seed is the same noise on every device.
    randomness = ImageRandomness("sampling", 0, seeds)
    normal = partial(randomness.normal, *model.shape)
    dtype = state_dtype(model.device)
    sigmas = model.diffusion.grid(how.steps).to(model.device, dtype)
    start = samplers.starting_noise(normal().to(model.device), sigmas[0])
    label = None if labels is None else torch.tensor(labels, device=model.device)
    denoise = guided(model.denoise, how.guidance)
    walk = _sampler(how, normal)
    return _without_gradients(walk(clipped(denoise) if how.clip else denoise, start, sigmas, label))


def watched(steps: Iterator[Step], show: Callable[[int], object]) -> Iterator[Step]:
    """Passes the steps on and tells `show` the number of each, from 1."""
    for i, step in enumerate(steps, 1):
        show(i)
        yield step


def last(steps: Iterator[Step]) -> Step:
    """The last step, whose x is the sample; the others are not kept."""
    return deque(steps, maxlen=1)[0]


def labels_for(model: Model, seeds: Sequence[int], label: int | None) -> list[int] | None:
    """The label of each seed: the one given, else every class in turn; None for a model without classes."""
    if not model.class_names:
        return None
    return [seed % len(model.class_names) if label is None else label for seed in seeds]


def find_label(class_names: tuple[str, ...], label: str) -> int:
    """The index of a class given by index or name; `none` is no label.

    Raises:
        ValueError: the model has no such class, or no classes.
    """
    if not class_names:
        raise ValueError(f"--label {label}: this model was trained without classes; leave --label out.")
    if label in class_names:
        return class_names.index(label)
    if label.lower() == "none":
        return NO_LABEL
    if label.isdecimal() and int(label) < len(class_names):
        return int(label)
    shown = ", ".join(class_names[:12]) + (", ..." if len(class_names) > 12 else "")
    raise ValueError(
        f"--label {label}: this model has no such class; choose 0 to {len(class_names) - 1} or one of {shown}."
    )


def check_guidance(config: Config) -> None:
    """Raises ValueError where the model never learned what is there without a label, which guidance compares with."""
    if not config.class_names:
        raise ValueError("--guidance has nothing to strengthen: this model was trained without classes.")
    if config.training.label_dropout == 0:
        raise ValueError(
            "This model always saw the class in training (label_dropout 0): it has no guidance and no none."
        )


def network_calls(how: SamplingConfig, labelled: bool) -> int:
    """How often a picture goes through the network; guidance takes two calls where there is a label."""
    calls = 2 * how.steps - 1 if how.sampler == "heun" else how.steps
    return calls * (2 if labelled and how.guidance != 1 else 1)


def _sampler(how: SamplingConfig, noise: Callable[[], Tensor]) -> Callable[..., Iterator[Step]]:
    variances = {"small": samplers.small_variance, "large": samplers.large_variance}
    choices = {
        "euler": samplers.euler,
        "heun": samplers.heun,
        "ancestral": partial(samplers.ancestral, noise=noise, variance=variances[how.variance]),
    }
    return choices[how.sampler]


def _without_gradients(steps: Iterator[Step]) -> Iterator[Step]:
    # Entered anew for each step: a generator's caller must not find gradients switched off.
    while True:
        with torch.no_grad():
            step = next(steps, None)
        if step is None:
            return
        yield step
