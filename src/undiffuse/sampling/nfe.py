"""NFE, the number of function evaluations, counted by sampling with a network that costs nothing."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.denoiser import Prediction
from undiffuse.sampling.model import Model, last, sampler_steps
from undiffuse.utils.conditions import Condition, Conditions, as_conditions, says_something


def nfe(model: Model, sampling: SamplingConfig, told: Condition | Sequence[int]) -> int:
    """The evaluations of networks that make one image: the model's own, those without conditions, and the guide's.

    `told` is the labels of the images, or all that the model is told. Where it is told something of some of them, it is
    the NFE of these: one that it is told nothing of has as many where it is in a batch with others.
    """
    conditions = _first_told(as_conditions(told))
    evaluations = 0

    def predict(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
        nonlocal evaluations
        evaluations += len(x)
        return Prediction(torch.zeros_like(x), torch.zeros_like(x))

    cpu = torch.device("cpu")
    guide = None if model.guide is None else replace(model.guide, predict=predict, device=cpu)
    counted = replace(model, predict=predict, device=cpu, guide=guide)
    pixels = torch.zeros(1, 1, 1, 1)
    last(sampler_steps(counted, sampling, lambda: pixels, conditions))
    return evaluations


def _first_told(conditions: Conditions) -> Conditions:
    """Those of one image: the first of which anything is told that guidance could strengthen."""
    images = next((len(each) for each in conditions if each is not None), 0)
    each = (conditions.map(lambda values, i=i: values[i : i + 1]) for i in range(images))
    return next((one for one in each if says_something(one)), conditions.map(lambda values: values[:1]))
