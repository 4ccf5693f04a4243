"""A sampler with its options, its precision, and no gradients: what turns settings into a function."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion import reverse, samplers
from undiffuse.diffusion.denoiser import Predict, Prediction, denoiser
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.diffusion.samplers import Step
from undiffuse.utils.conditions import Condition
from undiffuse.utils.device import autocast
from undiffuse.utils.names import SamplingPrecision

BoundSampler = Callable[[Predict, Tensor, Tensor, Condition], Iterator[Step]]
"""(predict, x, sigmas, label) -> the steps."""


def bound_sampler(diffusion: DiffusionConfig, sampling: SamplingConfig, noise: samplers.Noise) -> BoundSampler:
    """The sampler with its options, as a function of predict, x, sigmas and label."""
    # By name, so that the table, which --help reads, needs no torch.
    row, function = SAMPLERS[sampling.sampler], getattr(samplers, sampling.sampler)
    options = {option.name: getattr(sampling, option.name) for option in row.options}
    if "variance" in options:
        auto = "learned" if diffusion.learned_variance else "small"
        options["variance"] = reverse.VARIANCES[auto if sampling.variance == "auto" else sampling.variance]
    if row.adds_noise:
        options["noise"] = noise
    taken = (lambda predict: predict) if row.takes_prediction else denoiser
    return lambda predict, x, sigmas, label: function(taken(predict), x, sigmas, label, **options)


def in_precision(predict: Predict, device: torch.device, precision: SamplingPrecision) -> Predict:
    """The predictor with its network in that precision; the state and the arithmetic around it keep theirs."""

    def predict_in_precision(x: Tensor, sigma: Tensor, label: Condition) -> Prediction:
        with autocast(device, precision):
            return predict(x, sigma, label)

    return predict_in_precision


def without_gradients(steps: Iterator[Step]) -> Iterator[Step]:
    """The same steps, computed without gradients."""
    # Entered for each step: between steps the caller must not find gradients switched off.
    while True:
        with torch.no_grad():
            step = next(steps, None)
        if step is None:
            return
        yield step
