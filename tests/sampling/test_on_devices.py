"""Every sampler on emulated GPUs: the CPU's images, and no step that waits for the GPU."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers.accelerator import emulated

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.networks.unet import UNetConfig
from undiffuse.sampling.model import Model, last, model_of, sample_steps
from undiffuse.utils.names import Precision

STEPS = 3
FP32: Precision = "fp32"


@pytest.fixture
def model(
    preset_config: Callable[[str], Config],
    small_network: UNetConfig,
    randomized: Callable[[torch.nn.Module], torch.nn.Module],
) -> Model:
    """Its variance is learned and its timesteps are looked up: all that a step may need."""
    diffusion = DiffusionConfig(parametrization="v", objective="hybrid", sigma_sampler="discrete_uniform")
    network_config = replace(small_network, multipliers=(1,), attention_resolutions=())
    config = replace(preset_config("digits"), network=network_config, diffusion=diffusion)
    torch.manual_seed(0)
    network = randomized(config.build_network()).eval().requires_grad_(False)
    return model_of(network, config, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["mps", "cuda"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_makes_the_same_images_and_no_step_waits(sampler: str, kind: str, model: Model) -> None:
    sampling = SamplingConfig(sampler=sampler, steps=STEPS, guidance=2.0, precision=FP32, s_churn=1.0, eta=0.5)
    expected = last(sample_steps(model, [0, 1], [0, 2], sampling)).x
    with emulated(kind) as accelerator:
        assert model.network
        network = copy.deepcopy(model.network).to(accelerator.device)
        steps = sample_steps(model_of(network, model.config, accelerator.device), [0, 1], [0, 2], sampling)
        next(steps)
        accelerator.forget()
        *_, done = steps
        assert accelerator.reads == []
        # Fresh noise comes from the CPU, whose generators are the same everywhere; MPS is waited for to copy it.
        most = STEPS - 1 if SAMPLERS[sampler].adds_noise else 0
        assert len(accelerator.uploads) <= (most if kind == "mps" else 0), accelerator.uploads
        assert done.x.dtype == (torch.float32 if kind == "mps" else torch.float64)
        found = done.x.cpu().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_only_the_network_computes_in_tf32(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated("cuda") as accelerator:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (8, 0))
        assert model.network
        network, allowed = copy.deepcopy(model.network).to(accelerator.device), []
        network.register_forward_hook(lambda *_: allowed.append(torch.backends.cuda.matmul.allow_tf32))
        for step in sample_steps(
            model_of(network, model.config, accelerator.device), [0], None, SamplingConfig(steps=STEPS)
        ):
            assert not torch.backends.cuda.matmul.allow_tf32, step.sigma
    assert allowed == [True] * STEPS


def test_a_model_on_mps_takes_float64(model: Model) -> None:
    x, sigma = torch.randn(2, *model.shape, dtype=torch.float64), torch.tensor([2.0, 3.0], dtype=torch.float64)
    expected = model.denoise(x, sigma, label=1)
    with emulated("mps") as accelerator:
        assert model.network
        network = copy.deepcopy(model.network).to(accelerator.device)
        found = model_of(network, model.config, accelerator.device).denoise(x.numpy(), sigma, label=1)
        torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-4, atol=1e-4)
