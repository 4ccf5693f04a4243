"""From seeds to images: a seed is the same noise and image in any company; labels and costs are told right."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion import noise, reverse, samplers
from undiffuse.diffusion.denoiser import NO_LABEL, clipped, denoiser, estimator, guided, without_variance
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.runs.run import create_run
from undiffuse.sampling.model import (
    Model,
    at_few_steps,
    find_label,
    grid,
    labels_for,
    last,
    load_model,
    model_of,
    nfe,
    sample,
    watched,
)
from undiffuse.utils.names import SamplerName
from undiffuse.utils.randomness import ImageRandomness

CPU = torch.device("cpu")
NAMES = ("cats", "dogs", "snow")

OFF_THE_CHAIN = DiffusionConfig()
ON_THE_CHAIN = DiffusionConfig(parametrization="v", draw="discrete_uniform", schedule="cosine")
WAYS = [
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="euler", steps=6), id="euler"),
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="heun", steps=6, guidance=1.5), id="heun"),
    pytest.param(ON_THE_CHAIN, SamplingConfig(sampler="ancestral", steps=12), id="ancestral"),
    pytest.param(ON_THE_CHAIN, SamplingConfig(sampler="ancestral", steps=12, clip=True), id="ancestral clipped"),
    pytest.param(ON_THE_CHAIN, SamplingConfig(sampler="ddim", steps=12, eta=0.5), id="ddim"),
    pytest.param(ON_THE_CHAIN, SamplingConfig(sampler="dpmpp_2m", steps=6), id="dpmpp_2m"),
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="euler_ancestral", steps=6), id="euler_ancestral"),
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="heun", steps=6, churn=5.0), id="churned heun"),
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="lms", steps=6, grid="log_snr"), id="lms"),
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="ipndm", steps=6, order=2, guidance=2.0), id="ipndm"),
]


@pytest.fixture
def config(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Config:
    return replace(preset_config("small"), network=small_network, diffusion=OFF_THE_CHAIN)


@pytest.fixture
def network(small_network: UNetConfig, random_unet: Callable[[UNetConfig], UNet]) -> UNet:
    return random_unet(small_network)


def made(model: Model, seeds: list[int], how: SamplingConfig) -> Tensor:
    """The pixels of the seeds, each with its label."""
    return to_pixels(last(sample(model, seeds, labels_for(model, seeds, None), how)).x).int()


@pytest.mark.parametrize(("diffusion", "how"), WAYS)
def test_a_seed_is_the_same_image_in_any_batch(
    diffusion: DiffusionConfig, how: SamplingConfig, network: nn.Module, config: Config
) -> None:
    model = model_of(network, replace(config, diffusion=diffusion), CPU)
    eight = made(model, list(range(8)), how)
    threes = torch.cat([made(model, seeds, how) for seeds in ([0, 1, 2], [3, 4, 5], [6, 7])])
    assert (eight - threes).abs().max() <= 1
    assert (eight[5:6] - made(model, [5], how)).abs().max() <= 1
    # Images that could differ: most pixels are neither black nor white, and no two seeds agree.
    assert ((eight > 0) & (eight < 255)).float().mean() > 0.5
    for one, other in pairwise(eight):
        assert (one - other).abs().max() > 10


@pytest.mark.parametrize(("diffusion", "how"), WAYS)
def test_a_seed_is_the_same_noise_to_the_last_bit_in_any_batch(
    diffusion: DiffusionConfig, how: SamplingConfig, config: Config
) -> None:
    # A denoiser that always answers 0 leaves in each x nothing but the seed's noise, at the start and of each step.
    seen: list[Tensor] = []

    def nothing(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    model = model_of(nn.Identity(), replace(config, diffusion=diffusion, class_names=()), CPU)
    model = replace(model, estimate=without_variance(nothing))

    def walk(seeds: list[int]) -> Tensor:
        seen.clear()
        last(sample(model, seeds, None, how))
        return torch.stack(seen)  # (calls, seeds, ...)

    eight = walk(list(range(8)))
    assert torch.equal(torch.cat([walk([0, 1, 2]), walk([3, 4, 5]), walk([6, 7])], dim=1), eight)
    assert torch.equal(walk([5]), eight[:, 5:6])
    assert torch.equal(walk([7, 2]), eight[:, [7, 2]])
    # Unit normal in DDPM's scale, 512 numbers: five standard errors of mean and variance.
    start = eight[0] / torch.sqrt(1 + grid(diffusion, how)[0] ** 2)
    assert start.mean().abs() < 5 / 512**0.5
    assert abs(start.var() - 1) < 5 * (2 / 512) ** 0.5


def test_large_and_neighboring_seeds_have_noise_of_their_own(network: nn.Module, config: Config) -> None:
    images = made(model_of(network, config, CPU), [0, 1, 2**31, 2**32, 2**63], SamplingConfig(steps=3))
    assert torch.cdist(images.flatten(1).float(), images.flatten(1).float()).fill_diagonal_(999).min() > 50


def test_label_and_guidance_change_the_image_of_a_seed(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)

    def of(label: int, guidance: float) -> Tensor:
        return last(sample(model, [0], [label], SamplingConfig(steps=4, guidance=guidance))).x

    images = [of(0, 1.0), of(1, 1.0), of(NO_LABEL, 1.0), of(0, 3.0)]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(of(NO_LABEL, 3.0), of(NO_LABEL, 1.0), rtol=0, atol=1e-4)


def test_clipping_holds_every_estimate_in_range(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    estimates = {
        clip: torch.stack([step.x0 for step in sample(model, [0, 1], [0, 1], SamplingConfig(steps=6, clip=clip))])
        for clip in (False, True)
    }
    assert estimates[False].abs().max() > 1
    assert estimates[True].abs().max() <= 1


@pytest.mark.parametrize(("diffusion", "how"), WAYS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("labeled", [True, False])
def test_nfe_are_those_that_are_made(
    diffusion: DiffusionConfig,
    how: SamplingConfig,
    guidance: float,
    labeled: bool,
    network: nn.Module,
    config: Config,
) -> None:
    images = []
    network.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0])))
    how = replace(how, guidance=guidance)
    model = model_of(network, replace(config, diffusion=diffusion), CPU)
    last(sample(model, [0, 1, 2], [0, 1, 2] if labeled else None, how))
    assert sum(images) / 3 == nfe(how, labeled)


def test_sampling_keeps_no_gradients_and_leaves_the_callers_switch_alone(network: nn.Module, config: Config) -> None:
    for step in sample(model_of(network, config, CPU), [0], [0], SamplingConfig(steps=2)):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad


def test_step_counts_that_the_chain_does_not_have_are_refused_before_the_first_step(
    network: nn.Module, config: Config
) -> None:
    model = model_of(network, replace(config, diffusion=ON_THE_CHAIN), CPU)
    for how in (SamplingConfig(sampler="ancestral", steps=1001), SamplingConfig(grid="chain", steps=1001)):
        with pytest.raises(ValueError, match="1001 steps do not fit this model's chain"):
            sample(model, [0], [0], how)


def test_a_model_without_a_chain_refuses_its_grid(network: nn.Module, config: Config) -> None:
    with pytest.raises(ValueError, match="choose grid karras or log_snr"):
        sample(model_of(network, config, CPU), [0], [0], SamplingConfig(grid="chain", steps=6))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_ddpms_samplers_walk_the_chain_where_there_is_one(sampler: SamplerName) -> None:
    how = SamplingConfig(sampler=sampler, steps=25)
    assert torch.equal(grid(ON_THE_CHAIN, how), ON_THE_CHAIN.discrete_sigmas(25))
    assert torch.equal(grid(OFF_THE_CHAIN, how), noise.karras_sigmas(25, 0.002, 80.0))


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m", "lms", "ipndm"])
def test_the_other_samplers_walk_karras_et_als_levels(sampler: SamplerName) -> None:
    how = SamplingConfig(sampler=sampler, steps=25)
    assert torch.equal(grid(OFF_THE_CHAIN, how), noise.karras_sigmas(25, *OFF_THE_CHAIN.sigma_range()))
    low, noisiest = ON_THE_CHAIN.sigma_range()
    levels = grid(ON_THE_CHAIN, how)
    assert levels[0] == noisiest
    assert torch.equal(levels[1:], noise.karras_sigmas(24, low, ON_THE_CHAIN.sigma_max)), "one step down to sigma_max"


def test_a_grid_that_is_named_is_walked_by_any_sampler() -> None:
    for sampler in ("ancestral", "ddim", "heun"):
        how = SamplingConfig(sampler=sampler, steps=25)
        assert torch.equal(grid(ON_THE_CHAIN, replace(how, grid="karras")), ON_THE_CHAIN.karras_sigmas(25))
        assert torch.equal(grid(ON_THE_CHAIN, replace(how, grid="log_snr")), ON_THE_CHAIN.log_snr_sigmas(25))
        assert torch.equal(grid(ON_THE_CHAIN, replace(how, grid="chain")), ON_THE_CHAIN.discrete_sigmas(25))


def test_few_steps_bring_the_sampler_that_is_best_at_few() -> None:
    for sampler in ("ancestral", "ddim"):
        how = SamplingConfig(sampler=sampler, steps=99, guidance=2.0, clip=True)
        assert at_few_steps(how) == replace(how, sampler="ipndm")
        assert at_few_steps(replace(how, steps=100)) == replace(how, steps=100)
    assert at_few_steps(SamplingConfig(sampler="heun", steps=5)) == SamplingConfig(sampler="heun", steps=5)


def churned(how: SamplingConfig) -> Callable:
    options = {"churn_min": how.churn_min, "churn_max": how.churn_max, "churn_noise": how.churn_noise}
    return partial(samplers.churned_heun, churn=how.churn, **options)


CHURNED = SamplingConfig(sampler="heun", churn=4.0, churn_min=0.1, churn_max=9.0, churn_noise=1.1)


@pytest.mark.parametrize(
    ("how", "walk"),
    [
        (SamplingConfig(sampler="euler"), samplers.euler),
        (SamplingConfig(sampler="heun"), samplers.heun),
        (CHURNED, churned(CHURNED)),
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
    ids=lambda value: "" if callable(value) else f"{value.sampler} {value.order} {value.churn} {value.variance}",
)
def test_each_sampler_is_the_function_of_its_name_with_its_settings(
    how: SamplingConfig, walk: Callable, network: UNet, config: Config
) -> None:
    # A model that has learned its variance, so that each sampler has all that it could take.
    diffusion = replace(ON_THE_CHAIN, parametrization="eps", objective="hybrid")
    how = replace(how, steps=5, guidance=1.5, clip=True)

    def learning(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        return torch.cat([network(x, c_noise, label), torch.sin(3 * x)], dim=1)

    estimate = estimator(learning, diffusion.coefficients())
    model = replace(model_of(network, replace(config, diffusion=diffusion), CPU), estimate=estimate)
    ours = last(sample(model, [3, 4], [0, 1], how)).x

    normal = partial(ImageRandomness("sampling", 0, [3, 4]).normal, 1, 8, 8)
    sigmas = grid(diffusion, how)
    start = samplers.starting_noise(normal(), sigmas[0])
    asked: Callable = clipped(guided(estimate, 1.5))
    asked = asked if how.sampler == "ancestral" else denoiser(asked)
    draws_noise = how.sampler in ("ancestral", "euler_ancestral") or how.churn or how.eta
    options = {"noise": normal} if draws_noise else {}
    with torch.no_grad():
        expected = last(walk(asked, start, sigmas, torch.tensor([0, 1]), **options)).x
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_a_fixed_variance_is_small_unless_another_is_named(network: nn.Module, config: Config) -> None:
    model = model_of(network, replace(config, diffusion=ON_THE_CHAIN), CPU)
    how = SamplingConfig(sampler="ancestral", steps=5)
    auto, small, large = (
        last(sample(model, [0], [0], replace(how, variance=variance))).x for variance in ("auto", "small", "large")
    )
    assert torch.equal(auto, small)
    assert not torch.equal(auto, large)
    with pytest.raises(ValueError, match="has not learned its variance"):
        last(sample(model, [0], [0], replace(how, variance="learned")))


def test_who_watches_is_told_each_step_as_it_is_made(network: nn.Module, config: Config) -> None:
    told: list[int] = []
    steps = watched(sample(model_of(network, config, CPU), [0], [0], SamplingConfig(steps=3)), told.append)
    for number, _ in enumerate(steps, 1):
        assert told == list(range(1, number + 1))
    assert told == [1, 2, 3]


def test_labels_go_round_all_classes_by_seed_unless_one_is_given(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    assert labels_for(model, [0, 1, 2, 3, 7], None) == [0, 1, 2, 0, 1]
    assert labels_for(model, [0, 5], 2) == [2, 2]
    assert labels_for(model, [0, 5], NO_LABEL) == [NO_LABEL, NO_LABEL]
    without_classes = replace(model, class_names=())
    assert labels_for(without_classes, [0, 5], None) is None


@pytest.mark.parametrize(
    ("label", "index"), [("dogs", 1), ("2", 2), ("0", 0), ("none", NO_LABEL), ("None", NO_LABEL), ("٢", 2)]
)
def test_a_label_is_found_by_name_index_or_none(label: str, index: int) -> None:
    assert find_label(NAMES, label) == index


def test_a_class_name_comes_before_an_index_and_before_none() -> None:
    assert find_label(("2", "1", "0"), "2") == 0
    assert find_label(("some", "none"), "none") == 1


@pytest.mark.parametrize("label", ["3", "-1", "Cats", "", "1.0", "²", "cats "])
def test_a_label_that_the_model_does_not_have_is_refused_with_those_it_has(label: str) -> None:
    with pytest.raises(ValueError) as refused:
        find_label(NAMES, label)
    assert str(refused.value) == (
        f"--label {label}: this model has no such class; choose 0 to 2 or one of cats, dogs, snow."
    )


def test_of_many_classes_the_refusal_shows_the_first_twelve() -> None:
    names = tuple(f"class{i}" for i in range(100))
    with pytest.raises(ValueError, match=r"choose 0 to 99 or one of class0, .*class11, \.\.\.\.$"):
        find_label(names, "100")


def test_a_model_without_classes_refuses_every_label() -> None:
    for label in ("0", "none", "cats"):
        with pytest.raises(ValueError, match=f"^--label {label}: this model was trained without classes"):
            find_label((), label)


def test_a_loaded_model_makes_the_images_of_the_weights_that_were_asked_for(
    network: nn.Module, config: Config, tmp_path: Path
) -> None:
    run = create_run(tmp_path / "run", config)
    with pytest.raises(FileNotFoundError, match="run has no whole checkpoint"):
        load_model(run, CPU, "average", print)
    torch.manual_seed(1)
    other = config.build_network().eval()
    run.save(500, {"network": network.state_dict(), "average": other.state_dict(), "optimizer": {}}, {}, keep=1)
    how = SamplingConfig(steps=3)
    for weights, expected in (("network", network), ("average", other)):
        model, checkpoint = load_model(run, CPU, weights, print)
        assert checkpoint.images == 500
        assert model.class_names == NAMES
        assert (made(model, [0, 1], how) - made(model_of(expected, config, CPU), [0, 1], how)).abs().max() <= 1
