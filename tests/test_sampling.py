"""From seeds to pictures: a seed is the same noise and picture in any company; labels and costs are told right."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.denoiser import NO_LABEL
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.runs import create_run
from undiffuse.sampling import Model, find_label, labels_for, last, load_model, model_of, network_calls, sample, watched

CPU = torch.device("cpu")
NAMES = ("cats", "dogs", "snow")

OFF_THE_CHAIN = DiffusionConfig()
ON_THE_CHAIN = DiffusionConfig(parametrization="v", draw="discrete_uniform", schedule="cosine")
WAYS = [
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="euler", steps=6), id="euler"),
    pytest.param(OFF_THE_CHAIN, SamplingConfig(sampler="heun", steps=6, guidance=1.5), id="heun"),
    pytest.param(ON_THE_CHAIN, SamplingConfig(sampler="ancestral", steps=12), id="ancestral"),
    pytest.param(ON_THE_CHAIN, SamplingConfig(sampler="ancestral", steps=12, clip=True), id="ancestral clipped"),
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
def test_a_seed_is_the_same_picture_in_any_batch(
    diffusion: DiffusionConfig, how: SamplingConfig, network: nn.Module, config: Config
) -> None:
    model = model_of(network, replace(config, diffusion=diffusion), CPU)
    eight = made(model, list(range(8)), how)
    threes = torch.cat([made(model, seeds, how) for seeds in ([0, 1, 2], [3, 4, 5], [6, 7])])
    assert (eight - threes).abs().max() <= 1
    assert (eight[5:6] - made(model, [5], how)).abs().max() <= 1
    # Pictures that could differ: most pixels are neither black nor white, and no two seeds agree.
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

    model = replace(model_of(nn.Identity(), replace(config, diffusion=diffusion), CPU), denoise=nothing, class_names=())

    def walk(seeds: list[int]) -> Tensor:
        seen.clear()
        last(sample(model, seeds, None, how))
        return torch.stack(seen)  # (calls, seeds, ...)

    eight = walk(list(range(8)))
    assert torch.equal(torch.cat([walk([0, 1, 2]), walk([3, 4, 5]), walk([6, 7])], dim=1), eight)
    assert torch.equal(walk([5]), eight[:, 5:6])
    assert torch.equal(walk([7, 2]), eight[:, [7, 2]])
    # Unit normal in DDPM's scale, 512 numbers: five standard errors of mean and variance.
    start = eight[0] / torch.sqrt(1 + diffusion.grid(how.steps)[0] ** 2)
    assert start.mean().abs() < 5 / 512**0.5
    assert abs(start.var() - 1) < 5 * (2 / 512) ** 0.5


def test_large_and_neighbouring_seeds_have_noise_of_their_own(network: nn.Module, config: Config) -> None:
    pictures = made(model_of(network, config, CPU), [0, 1, 2**31, 2**32, 2**63], SamplingConfig(steps=3))
    assert torch.cdist(pictures.flatten(1).float(), pictures.flatten(1).float()).fill_diagonal_(999).min() > 50


def test_label_and_guidance_change_the_picture_of_a_seed(network: nn.Module, config: Config) -> None:
    model = model_of(network, config, CPU)

    def of(label: int, guidance: float) -> Tensor:
        return last(sample(model, [0], [label], SamplingConfig(steps=4, guidance=guidance))).x

    pictures = [of(0, 1.0), of(1, 1.0), of(NO_LABEL, 1.0), of(0, 3.0)]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
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
@pytest.mark.parametrize("labelled", [True, False])
def test_network_calls_are_those_that_are_made(
    diffusion: DiffusionConfig,
    how: SamplingConfig,
    guidance: float,
    labelled: bool,
    network: nn.Module,
    config: Config,
) -> None:
    pictures = []
    network.register_forward_pre_hook(lambda module, inputs: pictures.append(len(inputs[0])))
    how = replace(how, guidance=guidance)
    model = model_of(network, replace(config, diffusion=diffusion), CPU)
    last(sample(model, [0, 1, 2], [0, 1, 2] if labelled else None, how))
    assert sum(pictures) / 3 == network_calls(how, labelled)


def test_sampling_keeps_no_gradients_and_leaves_the_callers_switch_alone(network: nn.Module, config: Config) -> None:
    for step in sample(model_of(network, config, CPU), [0], [0], SamplingConfig(steps=2)):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad


def test_step_counts_that_the_chain_does_not_have_are_refused_before_the_first_step(
    network: nn.Module, config: Config
) -> None:
    model = model_of(network, replace(config, diffusion=ON_THE_CHAIN), CPU)
    with pytest.raises(ValueError, match="1001 steps do not fit this model's chain"):
        sample(model, [0], [0], SamplingConfig(steps=1001))


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


def test_a_loaded_model_makes_the_pictures_of_the_weights_that_were_asked_for(
    network: nn.Module, config: Config, tmp_path: Path
) -> None:
    run = create_run(tmp_path / "run", config)
    with pytest.raises(FileNotFoundError, match="run has no whole checkpoint"):
        load_model(run, CPU, "average", print)
    torch.manual_seed(1)
    other = UNet(config.network).eval()
    run.save(500, {"network": network.state_dict(), "average": other.state_dict(), "optimizer": {}}, {}, keep=1)
    how = SamplingConfig(steps=3)
    for weights, expected in (("network", network), ("average", other)):
        model, checkpoint = load_model(run, CPU, weights, print)
        assert checkpoint.images == 500
        assert model.class_names == NAMES
        assert (made(model, [0, 1], how) - made(model_of(expected, config, CPU), [0, 1], how)).abs().max() <= 1
