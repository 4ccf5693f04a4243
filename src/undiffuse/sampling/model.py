"""From a run to images: the model, the noise of each seed, and the sampler's steps."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion import reverse, samplers
from undiffuse.diffusion.denoiser import NO_LABEL, Estimator, clipped, denoiser, estimator, guided
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.samplers import Step
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.utils.device import state_dtype
from undiffuse.utils.randomness import ImageRandomness

SLOW = ("ancestral", "ddim")
FEW_STEPS = 100
"""Below as many, these fall behind the multistep samplers."""


Walk = Callable[[Estimator, Tensor, Tensor, Tensor | None], Iterator[Step]]


@dataclass(frozen=True)
class Model:
    """What sampling needs of a trained model."""

    estimate: Estimator
    diffusion: DiffusionConfig
    shape: tuple[int, int, int]
    """(channels, height, width) of an image."""
    class_names: tuple[str, ...]
    device: torch.device


def model_of(network: nn.Module, config: Config, device: torch.device) -> Model:
    """The model around a network that is on `device` already."""
    shape = config.network.image_channels, *config.network.size
    return Model(
        estimate=estimator(network, config.diffusion.coefficients()),
        diffusion=config.diffusion,
        shape=shape,
        class_names=config.class_names,
        device=device,
    )


def load_model(run: Run, device: torch.device, weights: str) -> tuple[Model, Checkpoint]:
    """The run's model, and the last good checkpoint, which it was read from.

    `weights` is "average" for the moving average, "network" for the weights that are being trained.

    Raises:
        FileNotFoundError: the run has no checkpoint that is whole.
    """
    checkpoint = run.last_good()
    if checkpoint is None:
        raise FileNotFoundError(f"{run.folder.absolute()} has no whole checkpoint: train it first, or for longer.")
    network = run.config.build_network()
    network.load_state_dict(checkpoint.tensors(weights))
    network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return model_of(network, run.config, device), checkpoint


def sample(model: Model, seeds: Sequence[int], labels: Sequence[int] | None, how: SamplingConfig) -> Iterator[Step]:
    """The steps of one batch, an image a seed. An image depends on its seed and label, not on the rest of the batch.

    Raises:
        ValueError: the number of steps does not fit the model's chain.
    """
    # One generator an image, on the CPU: the same seed is the same noise on every device.
    randomness = ImageRandomness("sampling", 0, seeds)
    normal = partial(randomness.normal, *model.shape)
    dtype = state_dtype(model.device)
    sigmas = grid(model.diffusion, how).to(model.device, dtype)
    start = samplers.starting_noise(normal().to(model.device), sigmas[0])
    label = None if labels is None else torch.tensor(labels, device=model.device)
    estimate = guided(model.estimate, how.guidance)
    walk = _sampler(model.diffusion, how, normal)
    return _without_gradients(walk(clipped(estimate) if how.clip else estimate, start, sigmas, label))


def grid(diffusion: DiffusionConfig, how: SamplingConfig) -> Tensor:
    """The falling noise levels that sampling walks, float64.

    Raises:
        ValueError: the number of steps does not fit the model's chain, or the model has none.
    """
    choices = {
        "chain": diffusion.discrete_sigmas,
        "karras": diffusion.karras_sigmas,
        "log_snr": diffusion.log_snr_sigmas,
    }
    walks_chain = diffusion.is_discrete and how.sampler in SLOW
    return choices[how.grid if how.grid != "auto" else "chain" if walks_chain else "karras"](how.steps)


def at_few_steps(how: SamplingConfig) -> SamplingConfig:
    """The same, but where the steps are few for its sampler, with the one that is best at few."""
    if how.sampler in SLOW and how.steps < FEW_STEPS:
        return replace(how, sampler="ipndm", grid="auto")
    return how


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


def nfe(how: SamplingConfig, labeled: bool) -> int:
    """How often an image goes through the network; guidance takes two calls where there is a label."""
    calls = 2 * how.steps - 1 if how.sampler == "heun" else how.steps
    return calls * (2 if labeled and how.guidance != 1 else 1)


def _sampler(diffusion: DiffusionConfig, how: SamplingConfig, noise: samplers.Noise) -> Walk:
    """The sampler as a function of estimator, start, grid and label."""
    if how.sampler == "ancestral":
        variances = {"small": reverse.small, "large": reverse.large, "learned": reverse.learned}
        variances["auto"] = reverse.learned if diffusion.learned_variance else reverse.small
        return partial(samplers.ancestral, noise=noise, variance=variances[how.variance])
    churn = {"churn": how.churn, "churn_min": how.churn_min, "churn_max": how.churn_max, "churn_noise": how.churn_noise}
    choices = {
        "ddim": partial(samplers.ddim, noise=noise, eta=how.eta),
        "euler": samplers.euler,
        "euler_ancestral": partial(samplers.ddim, noise=noise, eta=1.0),
        "heun": partial(samplers.churned_heun, noise=noise, **churn) if how.churn else samplers.heun,
        "dpmpp_2m": samplers.dpmpp_2m,
        "lms": partial(samplers.lms, order=how.order),
        "ipndm": partial(samplers.ipndm, order=how.order),
    }
    walk = choices[how.sampler]
    return lambda estimate, x, sigmas, label: walk(denoiser(estimate), x, sigmas, label)


def _without_gradients(steps: Iterator[Step]) -> Iterator[Step]:
    # Entered anew for each step: a generator's caller must not find gradients switched off.
    while True:
        with torch.no_grad():
            step = next(steps, None)
        if step is None:
            return
        yield step
