"""A seed is the same noise and the same image in any company."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers.sampling import CPU, WAYS, made
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion.denoiser import without_variance
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.sampling.model import last, model_of, sample_steps
from undiffuse.sampling.options import noise_levels


@pytest.mark.parametrize(("diffusion", "sampling"), WAYS)
def test_a_seed_is_the_same_image_in_any_batch(
    diffusion: DiffusionConfig, sampling: SamplingConfig, network: nn.Module, config: Config
) -> None:
    model = model_of(network, replace(config, diffusion=diffusion), CPU)
    eight = made(model, list(range(8)), sampling)
    threes = torch.cat([made(model, seeds, sampling) for seeds in ([0, 1, 2], [3, 4, 5], [6, 7])])
    assert (eight - threes).abs().max() <= 1
    assert (eight[5:6] - made(model, [5], sampling)).abs().max() <= 1
    # Images that could differ: most pixels are neither black nor white, and no two seeds agree.
    assert ((eight > 0) & (eight < 255)).float().mean() > 0.5
    for one, other in pairwise(eight):
        assert (one - other).abs().max() > 10


@pytest.mark.parametrize(("diffusion", "sampling"), WAYS)
def test_a_seed_is_the_same_noise_to_the_last_bit_in_any_batch(
    diffusion: DiffusionConfig, sampling: SamplingConfig, config: Config
) -> None:
    # A denoiser that always answers 0 leaves in each x nothing but the seed's noise, at the start and of each step.
    seen: list[Tensor] = []

    def nothing(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    model = model_of(nn.Identity(), replace(config, diffusion=diffusion, class_names=()), CPU)
    model = replace(model, predict=without_variance(nothing))

    def walk(seeds: list[int]) -> Tensor:
        seen.clear()
        last(sample_steps(model, seeds, None, sampling))
        return torch.stack(seen)  # (calls, seeds, ...)

    eight = walk(list(range(8)))
    assert torch.equal(torch.cat([walk([0, 1, 2]), walk([3, 4, 5]), walk([6, 7])], dim=1), eight)
    assert torch.equal(walk([5]), eight[:, 5:6])
    assert torch.equal(walk([7, 2]), eight[:, [7, 2]])
    # Unit normal in DDPM's scale, 512 numbers: five standard errors of mean and variance.
    start = eight[0] / torch.sqrt(1 + noise_levels(diffusion, sampling)[0] ** 2)
    assert start.mean().abs() < 5 / 512**0.5
    assert abs(start.var() - 1) < 5 * (2 / 512) ** 0.5


def test_large_and_neighboring_seeds_have_noise_of_their_own(network: nn.Module, config: Config) -> None:
    images = made(model_of(network, config, CPU), [0, 1, 2**31, 2**32, 2**63], SamplingConfig(steps=3))
    assert torch.cdist(images.flatten(1).float(), images.flatten(1).float()).fill_diagonal_(999).min() > 50
