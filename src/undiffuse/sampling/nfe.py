"""NFE, the number of function evaluations, counted by sampling with a network that costs nothing."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.denoiser import Prediction
from undiffuse.sampling.model import Model, last, sampler_steps
from undiffuse.utils.conditions import Condition, as_conditions


def nfe(model: Model, sampling: SamplingConfig, told: Condition | Sequence[int]) -> int:
    """The evaluations of networks that make one image: the model's own, those without conditions, and the guide's.

    `told` is the labels of a batch, or all that the model is told. Images that it is told nothing of take as many as
    the others in their batch.
    """
    conditions = as_conditions(told)
    images = next((len(each) for each in conditions if each is not None), 1)
    evaluations = 0

    def predict(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
        nonlocal evaluations
        evaluations += len(x)
        return Prediction(torch.zeros_like(x), torch.zeros_like(x))

    cpu = torch.device("cpu")
    guide = None if model.guide is None else replace(model.guide, predict=predict, device=cpu)
    counted = replace(model, predict=predict, device=cpu, guide=guide)
    pixels = torch.zeros(images, 1, 1, 1, dtype=torch.float64)
    last(sampler_steps(counted, sampling, lambda: pixels, conditions))
    return evaluations // images
