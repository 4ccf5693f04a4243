"""From seeds to images: a seed is the same noise and image in any company; labels and costs are told right."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tensors import normal
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion import noise, reverse, samplers
from undiffuse.diffusion.denoiser import Prediction, clipped, denoiser, predictor, without_variance
from undiffuse.diffusion.guidance import guided
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.report.grids import Images
from undiffuse.runs.run import Run, create_run
from undiffuse.sampling.labels import labels_for
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model, last, model_of, sample_steps, watched
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import noise_levels
from undiffuse.utils.conditions import NO_LABEL
from undiffuse.utils.randomness import ImageRandomness

CPU = torch.device("cpu")
NAMES = ("cats", "dogs", "snow")

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


@pytest.fixture
def config(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Config:
    return replace(preset_config("small"), network=small_network, diffusion=CONTINUOUS)


@pytest.fixture
def network(small_network: UNetConfig, random_unet: Callable[[UNetConfig], UNet]) -> UNet:
    return random_unet(small_network)


def made(model: Model, seeds: list[int], sampling: SamplingConfig) -> Tensor:
    """The pixels of the seeds, each with its label."""
    return to_pixels(last(sample_steps(model, seeds, labels_for(model.class_names, seeds, None), sampling)).x).int()


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


def test_label_and_guidance_change_the_image_of_a_seed(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)

    def of(label: int, guidance: float) -> Tensor:
        return last(sample_steps(model, [0], [label], SamplingConfig(steps=4, guidance=guidance))).x

    images = [of(0, 1.0), of(1, 1.0), of(NO_LABEL, 1.0), of(0, 3.0)]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(of(NO_LABEL, 3.0), of(NO_LABEL, 1.0), rtol=0, atol=1e-4)


def test_clipping_holds_every_estimate_in_range(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    estimates = {
        clip: torch.stack([step.x0 for step in sample_steps(model, [0, 1], [0, 1], SamplingConfig(steps=6, clip=clip))])
        for clip in (False, True)
    }
    assert estimates[False].abs().max() > 1
    assert estimates[True].abs().max() <= 1


@pytest.mark.parametrize(("diffusion", "sampling"), WAYS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("labeled", [True, False])
def test_nfe_are_those_that_are_made(
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    guidance: float,
    labeled: bool,
    network: nn.Module,
    config: Config,
) -> None:
    images = []
    network.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0])))
    sampling = replace(sampling, guidance=guidance)
    model = model_of(network, replace(config, diffusion=diffusion), CPU)
    last(sample_steps(model, [0, 1, 2], [0, 1, 2] if labeled else None, sampling))
    made = sum(images) / 3
    assert made == nfe(model, sampling, [0] if labeled else None)
    assert sum(images) / 3 == made  # Counting evaluates no network.


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SamplingConfig(steps=6, guidance=2.0, guidance_interval=(0.2, 3.0)), "inside"),
        (SamplingConfig(steps=6, guidance=2.0, guidance_interval=(1e6, 2e6)), "never"),
        (SamplingConfig(sampler="heun", steps=6, guidance=2.0, guidance_interval=(0.2, 3.0)), "inside"),
        (SamplingConfig(steps=6, guidance=1.0, guidance_interval=(0.2, 3.0)), "never"),
    ],
)
@pytest.mark.parametrize("by_another", [True, False])
def test_guidance_costs_an_evaluation_inside_its_interval_alone(
    sampling: SamplingConfig, expected: str, by_another: bool, network: nn.Module, config: Config
) -> None:
    levels, images = [], []
    model = model_of(network, config, CPU)

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        levels.append(float(sigma[0]))
        return model.predict(x, sigma, label)

    network.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0])))
    watched = replace(model, predict=predict)
    if by_another:
        watched = watched.guided_by(model)
    last(sample_steps(watched, [0], [0], sampling))
    inside = sum(0.2 < level <= 3.0 for level in levels) if expected == "inside" else 0
    assert expected == "never" or 0 < inside < len(levels)
    assert sum(images) == len(levels) + inside == nfe(watched, sampling, [0])


def test_a_model_that_guides_itself_changes_nothing(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    images = [
        each.sample(2, steps=3, guidance=guidance)
        for each, guidance in ((model, 1.0), (model.guided_by(model), 3.0), (model, 3.0))
    ]
    assert abs(images[0].astype(int) - images[1].astype(int)).max() <= 1
    assert abs(images[0].astype(int) - images[2].astype(int)).max() > 10


def test_a_guide_without_classes_gets_no_labels(
    network: nn.Module, config: Config, random_unet: Callable[[UNetConfig], UNet], small_network: UNetConfig
) -> None:
    plain = replace(config, network=replace(small_network, classes=0), class_names=())
    guide = model_of(random_unet(replace(small_network, classes=0)), plain, CPU)
    model = model_of(network, config, CPU)
    assert abs(model.guided_by(guide).sample(1, guidance=2.0, steps=3).astype(int) - model.sample(1, steps=3)).max() > 0
    with pytest.raises(ValueError, match="cannot guide"):
        guide.guided_by(model)
    with pytest.raises(ValueError, match="--guide does nothing at guidance 1"):
        model.guided_by(guide).sample(1, steps=3)


def test_each_image_can_have_its_own_label(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    names = model.class_names
    mixed = model.sample(3, label=[names[1], names[0], 1], steps=3, batch=2)
    turns = model.sample(3, label=f"{names[1]},{names[0]}", steps=3)
    assert abs(mixed.astype(int) - turns).max() <= 1
    assert abs(mixed[:1].astype(int) - model.sample(1, label=1, steps=3)).max() <= 1
    for two in ([0, 1], torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="2 labels for 3 images"):
            model.sample(3, label=two)
    always = replace(config, training=replace(config.training, label_dropout=0.0))
    with pytest.raises(ValueError, match="always saw the class"):
        model_of(network, always, CPU).sample(2, label=[0, NO_LABEL], guidance=1.0)


def test_nfe_of_mixed_labels_are_those_of_a_class(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)
    sampling = SamplingConfig(steps=6, guidance=2.0)
    assert [nfe(model, sampling, labels) for labels in ([NO_LABEL], [NO_LABEL, 1], [1, NO_LABEL])] == [6, 12, 12]
    assert model.find_labels("all") is None


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


def test_who_watches_is_told_each_step_as_it_is_made(network: nn.Module, config: Config) -> None:
    told: list[int] = []
    steps = watched(sample_steps(model_of(network, config, CPU), [0], [0], SamplingConfig(steps=3)), told.append)
    for number, _ in enumerate(steps, 1):
        assert told == list(range(1, number + 1))
    assert told == [1, 2, 3]


@pytest.fixture
def saved(network: nn.Module, config: Config, tmp_path: Path) -> tuple[Run, nn.Module]:
    """A run with `network` as the weights in training and another network as their EMA."""
    run = create_run(tmp_path / "run", config)
    torch.manual_seed(1)
    other = config.build_network().eval()
    run.save(500, {"network": network.state_dict(), "ema": other.state_dict()}, {}, keep=1)
    return run, other


def test_a_loaded_model_has_the_weights_that_were_asked_for(saved: tuple[Run, nn.Module], network: nn.Module) -> None:
    run, other = saved
    sampling = SamplingConfig(steps=3)
    for weights, expected in (("network", network), ("ema", other)):
        model = load_model(run, CPU, weights)
        assert model.origin[1].images == 500
        assert model.class_names == NAMES
        of_network = model_of(expected, run.config, CPU)
        assert (made(model, [0, 1], sampling) - made(of_network, [0, 1], sampling)).abs().max() <= 1


def test_a_run_without_a_checkpoint_gives_no_model(config: Config, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run has no whole checkpoint"):
        load_model(create_run(tmp_path / "run", config), CPU)


@pytest.fixture
def model(network: nn.Module, config: Config) -> Model:
    return model_of(network, config, CPU)


def test_denoise_takes_numbers_names_arrays_and_tensors(model: Model) -> None:
    x = normal(2, 1, 8, 8, dtype=torch.float32)
    expected = model.predict(x, torch.tensor([3.0, 3.0]), torch.tensor([1, 1])).x0
    for sigma in (3.0, torch.tensor(3.0), torch.tensor([3.0, 3.0]), np.float64(3)):
        for label in (1, "dogs", ["dogs", 1], torch.tensor([1, 1])):
            assert torch.equal(model.denoise(x, sigma, label), expected)
    assert torch.equal(model.denoise(x.numpy(), 3.0, 1), expected)
    assert torch.equal(model.denoise(x, 3.0), model.denoise(x, 3.0, "none"))
    with pytest.raises(ValueError, match="no such class"):
        model.denoise(x, 3.0, "birds")


def test_gradients_flow_through_the_denoiser(model: Model) -> None:
    x = normal(1, 1, 8, 8, dtype=torch.float32).requires_grad_()
    model.denoise(x, 1.0, 0).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_a_plain_sampler_takes_the_models_denoiser(model: Model) -> None:
    sigmas = noise.karras_sigmas(5, 0.002, 80.0)
    x = normal(2, 1, 8, 8) * 80
    with torch.no_grad():
        done = last(samplers.heun(model.denoise, x, sigmas, torch.tensor([0, 2])))
    assert done.x.shape == x.shape
    assert done.x.isfinite().all()


def test_steps_end_in_the_images_that_sample_makes(model: Model) -> None:
    steps = list(model.steps(3, label="dogs", sampler="heun", steps=4, seed=7))
    assert [float(step.sigma) for step in steps][-1] == 0
    assert len(steps) == 4
    images = model.sample(3, label="dogs", sampler="heun", steps=4, seed=7)
    assert (images.shape, images.dtype) == ((3, 8, 8, 1), np.uint8)
    assert np.array_equal(images, Images(to_pixels(steps[-1].x)))


def test_sampled_images_depend_on_their_seed_not_on_the_batch(model: Model) -> None:
    eight = model.sample(8, steps=3).astype(int)
    assert np.abs(eight - model.sample(8, steps=3, batch=3).astype(int)).max() <= 1
    assert np.abs(eight[5:] - model.sample(3, steps=3, seed=5).astype(int)).max() <= 1


def test_sampling_is_quiet_unless_progress_is_asked_for(model: Model, capsys: pytest.CaptureFixture) -> None:
    model.sample(2, steps=2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "at least 1"),
        ({"seed": -1}, "seed -1"),
        ({"steps": 0}, "steps"),
        ({"sampler": "magic"}, "magic"),
        ({"set": {"wings": 2}}, "wings is not a setting"),
        ({"label": "birds"}, "no such class"),
    ],
)
def test_what_a_model_cannot_do_is_a_value_error(model: Model, options: dict[str, Any], message: str) -> None:
    sample: Any = model.sample
    with pytest.raises(ValueError, match=message):
        sample(**{"count": 1, **options})


def test_a_model_that_always_saw_the_label_refuses_to_go_without(model: Model) -> None:
    always = replace(model.config, training=replace(model.config.training, label_dropout=0.0))
    blind = replace(model, config=always)
    for make in (blind.sample, blind.steps):
        with pytest.raises(ValueError, match="label_dropout 0"):
            make(1, label="none")
