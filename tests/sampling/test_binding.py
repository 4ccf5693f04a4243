"""Settings become the sampler of that name, with its options and without gradients."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.sampling import CPU, DISCRETE
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion import reverse, samplers
from undiffuse.diffusion.denoiser import clipped, denoiser, predictor
from undiffuse.diffusion.guidance import guided
from undiffuse.networks.unet import UNet
from undiffuse.sampling.model import last, model_of, sample_steps
from undiffuse.sampling.options import noise_levels
from undiffuse.utils.randomness import ImageRandomness

STOCHASTIC = {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 9.0, "s_noise": 1.1}


@pytest.mark.parametrize(
    ("sampling", "function"),
    [
        (SamplingConfig(sampler="euler"), samplers.euler),
        (SamplingConfig(sampler="heun"), samplers.heun),
        (SamplingConfig(sampler="heun", **STOCHASTIC), partial(samplers.heun, **STOCHASTIC)),
        (SamplingConfig(sampler="dpmpp_2m"), samplers.dpmpp_2m),
        (SamplingConfig(sampler="lms"), samplers.lms),
        (SamplingConfig(sampler="lms", order=2), partial(samplers.lms, order=2)),
        (SamplingConfig(sampler="ipndm"), samplers.ipndm),
        (SamplingConfig(sampler="ipndm", order=3), partial(samplers.ipndm, order=3)),
        (SamplingConfig(sampler="ddim"), samplers.euler),
        (SamplingConfig(sampler="ddim", eta=0.4), partial(samplers.ddim, eta=0.4)),
        (SamplingConfig(sampler="euler_ancestral"), partial(samplers.ddim, eta=1.0)),
        (SamplingConfig(sampler="ancestral"), partial(samplers.ancestral, variance=reverse.learned)),
        (
            SamplingConfig(sampler="ancestral", variance="learned"),
            partial(samplers.ancestral, variance=reverse.learned),
        ),
        (SamplingConfig(sampler="ancestral", variance="small"), partial(samplers.ancestral, variance=reverse.small)),
        (SamplingConfig(sampler="ancestral", variance="large"), partial(samplers.ancestral, variance=reverse.large)),
    ],
    ids=lambda value: "" if callable(value) else f"{value.sampler} {value.order} {value.s_churn} {value.variance}",
)
def test_each_sampler_is_the_function_of_its_name_with_its_settings(
    sampling: SamplingConfig, function: Callable, network: UNet, config: Config
) -> None:
    # A model that has learned its variance, so that each sampler has all that it could take.
    diffusion = replace(DISCRETE, parametrization="eps", objective="hybrid")
    sampling = replace(sampling, steps=5, guidance=1.5, clip=True)

    def learning(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        return torch.cat([network(x, c_noise, label), torch.sin(3 * x)], dim=1)

    predict = predictor(learning, diffusion.make_parametrization())
    model = replace(model_of(network, replace(config, diffusion=diffusion), CPU), predict=predict)
    ours = last(sample_steps(model, [3, 4], [0, 1], sampling)).x

    normal = partial(ImageRandomness("sampling", 0, [3, 4]).normal, 1, 8, 8)
    sigmas = noise_levels(diffusion, sampling)
    start = samplers.starting_noise(normal(), sigmas[0])
    clipped_prediction = clipped(guided(predict, 1.5))
    taken: Callable = clipped_prediction if sampling.sampler == "ancestral" else denoiser(clipped_prediction)
    draws_noise = sampling.sampler in ("ancestral", "euler_ancestral") or sampling.s_churn or sampling.eta
    options = {"noise": normal} if draws_noise else {}
    with torch.no_grad():
        expected = last(function(taken, start, sigmas, torch.tensor([0, 1]), **options)).x
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_a_fixed_variance_is_small_unless_another_is_named(network: nn.Module, config: Config) -> None:
    model = model_of(network, replace(config, diffusion=DISCRETE), CPU)
    sampling = SamplingConfig(sampler="ancestral", steps=5)
    auto, small, large = (
        last(sample_steps(model, [0], [0], replace(sampling, variance=variance))).x
        for variance in ("auto", "small", "large")
    )
    assert torch.equal(auto, small)
    assert not torch.equal(auto, large)
    with pytest.raises(ValueError, match="did not learn its variance"):
        last(sample_steps(model, [0], [0], replace(sampling, variance="learned")))


def test_clipping_holds_every_estimate_in_range(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    estimates = {
        clip: torch.stack([step.x0 for step in sample_steps(model, [0, 1], [0, 1], SamplingConfig(steps=6, clip=clip))])
        for clip in (False, True)
    }
    assert estimates[False].abs().max() > 1
    assert estimates[True].abs().max() <= 1


def test_sampling_keeps_no_gradients_and_leaves_the_callers_switch_alone(network: nn.Module, config: Config) -> None:
    for step in sample_steps(model_of(network, config, CPU), [0], [0], SamplingConfig(steps=2)):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad


def test_step_counts_that_the_chain_does_not_have_are_refused_before_the_first_step(
    network: nn.Module, config: Config
) -> None:
    model = model_of(network, replace(config, diffusion=DISCRETE), CPU)
    for sampling in (SamplingConfig(sampler="ancestral", steps=1001), SamplingConfig(sigmas="discrete", steps=1001)):
        with pytest.raises(ValueError, match="1001 steps do not fit this model's discrete schedule"):
            sample_steps(model, [0], [0], sampling)


def test_a_model_without_a_chain_refuses_its_grid(network: nn.Module, config: Config) -> None:
    with pytest.raises(ValueError, match="choose sigmas karras or log_snr"):
        sample_steps(model_of(network, config, CPU), [0], [0], SamplingConfig(sigmas="discrete", steps=6))
