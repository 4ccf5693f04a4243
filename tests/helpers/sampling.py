"""Ways to sample a small model, and the pixels that a seed gives."""

import pytest
import torch
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.sampling.labels import labels_for
from undiffuse.sampling.model import Model, last, sample_steps

CPU = torch.device("cpu")
CONTINUOUS = DiffusionConfig()
DISCRETE = DiffusionConfig(parametrization="v", sigma_sampler="discrete_uniform", schedule="cosine")
WAYS = [
    pytest.param(CONTINUOUS, SamplingConfig(sampler="euler", steps=6), id="euler"),
    pytest.param(CONTINUOUS, SamplingConfig(sampler="heun", steps=6, guidance=1.5), id="heun"),
    pytest.param(DISCRETE, SamplingConfig(sampler="ancestral", steps=12), id="ancestral"),
    pytest.param(DISCRETE, SamplingConfig(sampler="ancestral", steps=12, clip=True), id="ancestral clipped"),
    pytest.param(DISCRETE, SamplingConfig(sampler="ddim", steps=12, eta=0.5), id="ddim"),
    pytest.param(DISCRETE, SamplingConfig(sampler="dpmpp_2m", steps=6), id="dpmpp_2m"),
    pytest.param(CONTINUOUS, SamplingConfig(sampler="euler_ancestral", steps=6), id="euler_ancestral"),
    pytest.param(CONTINUOUS, SamplingConfig(sampler="heun", steps=6, s_churn=5.0), id="churned heun"),
    pytest.param(CONTINUOUS, SamplingConfig(sampler="lms", steps=6, sigmas="log_snr"), id="lms"),
    pytest.param(CONTINUOUS, SamplingConfig(sampler="ipndm", steps=6, order=2, guidance=2.0), id="ipndm"),
]


def made(model: Model, seeds: list[int], sampling: SamplingConfig) -> Tensor:
    """The pixels of the seeds, each with its label."""
    return to_pixels(last(sample_steps(model, seeds, labels_for(model.class_names, seeds, None), sampling)).x).int()
