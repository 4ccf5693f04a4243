"""Edits as generators: known pixels are kept, ends are what they are said to be, and closed forms are met."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.gaussians import gaussian, on_the_path
from helpers.tensors import normal
from torch import Tensor

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.denoiser import Predict, Prediction, without_variance
from undiffuse.diffusion.inverse_problems import area_downsampling
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.samplers import Step
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.sampling import editing
from undiffuse.sampling.edit_tasks import TASKS
from undiffuse.sampling.edits import Evaluations
from undiffuse.sampling.model import Model, last, model_of, sample_steps
from undiffuse.sampling.options import adds_noise
from undiffuse.utils.conditions import NO_LABEL

CPU = torch.device("cpu")
MEAN, STD = 0.2, 0.5
EULER = SamplingConfig(sampler="euler", steps=6)
ANCESTRAL = SamplingConfig(sampler="euler_ancestral", steps=6)
IMAGE = to_pixels(normal(1, 8, 8).clamp(-1, 1))
X = IMAGE.double() / 127.5 - 1
MASK = torch.zeros(8, 8, dtype=torch.bool)
MASK[2:6, 3:] = True


@pytest.fixture
def config(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Config:
    return replace(preset_config("small"), network=small_network, diffusion=DiffusionConfig(sigma_data=STD))


@pytest.fixture
def model(config: Config, small_network: UNetConfig, random_unet: Callable[[UNetConfig], UNet]) -> Model:
    return model_of(random_unet(small_network).requires_grad_(False), config, CPU)


@pytest.fixture
def exact(config: Config) -> Callable[[Predict], Model]:
    """A model without classes around a denoiser in closed form."""
    return lambda predict: Model(predict, replace(config, class_names=()), CPU)


def test_the_docs_have_the_tasks_with_their_options_and_samplers() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "editing.md").read_text(encoding="utf-8")
    table = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", docs, flags=re.MULTILINE)}
    for name, task in TASKS.items():
        options, sampler = table[name]
        for option in task.options:
            assert f"--{option.replace('_', '-')}" in options
        best = "the run's" if task.sampler is None else f"`{task.sampler}`"
        assert sampler == (best if task.steps is None else f"{best}, {task.steps} steps")


def edits(model: Model, seeds: list[int], sampling: SamplingConfig, label: int | None = None) -> dict[str, Tensor]:
    """The results of every edit of seeds."""
    operator = area_downsampling(model.shape, (4, 4))
    steps: dict[str, Iterator[Step]] = {
        "inpaint": editing.inpaint_steps(model, X, MASK, seeds, sampling, label, resamplings=2),
        "vary": editing.vary_steps(model, X, seeds, sampling, label, strength=0.5),
        "restore": editing.restore_steps(model, operator, operator(X[None])[0], seeds, sampling, label),
    }
    return {name: last(each).x for name, each in steps.items()}


@pytest.mark.parametrize("sampling", [EULER, ANCESTRAL], ids=["euler", "ancestral"])
def test_a_result_depends_on_its_seed_alone(model: Model, sampling: SamplingConfig) -> None:
    together, alone = edits(model, [3, 4, 5], sampling, label=1), edits(model, [4], sampling, label=1)
    for name in together:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=1e-4, atol=1e-4)
        assert (together[name][0] - together[name][1]).abs().max() > 0.01


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim", "ancestral", "euler_ancestral"])
def test_known_pixels_are_kept_to_the_bit(model: Model, sampler: str) -> None:
    sampling = SamplingConfig(sampler=sampler, steps=3)
    step = last(editing.inpaint_steps(model, X, MASK, [0, 1], sampling, resamplings=2))
    assert ((to_pixels(step.x) != IMAGE)[:, :, ~MASK]).sum() == 0
    assert ((to_pixels(step.x) != IMAGE)[:, :, MASK]).any()


def test_inpainting_needs_a_sampler_that_can_go_back(model: Model) -> None:
    with pytest.raises(ValueError, match="ipndm is multistep and cannot inpaint: choose one of heun, euler, ddim"):
        editing.inpaint_steps(model, X, MASK, [0], SamplingConfig())


def test_resampling_fits_unknown_pixels_to_known_ones(exact: Callable[[Predict], Model]) -> None:
    """Neighbors are Gaussian with correlation 0.9: of a known one at 1, the other has the mean 0.9."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Prediction:
        gain = covariance @ torch.linalg.inv(covariance + sigma[0] ** 2 * torch.eye(2, dtype=torch.float64))
        return Prediction(torch.einsum("ij,bchj->bchi", gain, x), None)

    model = exact(predict)
    narrow = replace(model.config.network, size=(1, 2), multipliers=(1,), attention_resolutions=())
    model = replace(model, config=replace(model.config, network=narrow))
    mask, image = torch.tensor([[False, True]]), torch.ones(1, 1, 2, dtype=torch.float64)
    sampling = SamplingConfig(sampler="euler_ancestral", steps=12)
    means = [
        last(editing.inpaint_steps(model, image, mask, range(200), sampling, resamplings=times)).x[..., 1].mean()
        for times in (1, 10)
    ]
    assert means[0] < 0.65
    assert means[1] == pytest.approx(0.9, abs=0.13)


def test_strength_0_gives_the_image_back_and_1_is_the_sample_of_the_seed(model: Model) -> None:
    (nothing,) = editing.vary_steps(model, X, [0, 1], EULER, strength=0.0)
    assert (to_pixels(nothing.x) == IMAGE).all()
    everything = last(editing.vary_steps(model, X, [0, 1], EULER, 2, strength=1.0)).x
    torch.testing.assert_close(everything, last(sample_steps(model, [0, 1], [2, 2], EULER)).x, rtol=0, atol=0)


def test_variations_move_away_with_the_strength(exact: Callable[[Predict], Model]) -> None:
    model = exact(without_variance(gaussian(MEAN, STD)))
    sampling = SamplingConfig(sampler="euler", steps=20)
    changes = [
        float((last(editing.vary_steps(model, X, range(8), sampling, strength=strength)).x - X).square().mean())
        for strength in (0.1, 0.3, 0.5, 0.8)
    ]
    assert changes == sorted(changes)
    assert changes[0] < 0.01 < 0.1 < changes[-1]


@pytest.mark.parametrize(
    ("steps", "strength", "made"), [(10, 0, 0), (10, 0.01, 1), (100, 0.07, 7), (18, 0.5, 9), (3, 0.5, 2), (7, 1, 7)]
)
def test_a_strength_is_a_number_of_steps(steps: int, strength: float, made: int) -> None:
    """100 * 0.07 is 7.000000000000001."""
    assert editing.steps_of_strength(steps, strength) == made


@pytest.mark.parametrize(
    ("edit", "evaluations"),
    [
        (lambda m: editing.inpaint_steps(m, X, MASK, [0, 1], ANCESTRAL, resamplings=3), 2 * (5 * 3 + 1)),
        (lambda m: editing.inpaint_steps(m, X, MASK, [0], replace(ANCESTRAL, sampler="heun"), resamplings=3), 31),
        (lambda m: editing.vary_steps(m, X, [0, 1], EULER, strength=0.5), 2 * 3),
        (lambda m: editing.vary_steps(m, X, [0, 1], EULER, strength=0.0), 0),
        (lambda m: editing.vary_steps(m, X, [0], replace(EULER, guidance=2.0), 1, strength=0.5), 6),
        (lambda m: editing.vary_steps(m, X, [0], replace(EULER, guidance=2.0), strength=0.5), 3),
        (lambda m: editing.invert_steps(m, X[None], replace(EULER, sampler="heun")), 10),
    ],
)
def test_evaluations_are_counted(model: Model, edit: Callable[[Model], Iterator[Step]], evaluations: int) -> None:
    counted = Evaluations()
    last(edit(counted.of(model)))
    assert counted.count == evaluations


def test_an_interpolation_of_seeds_ends_in_their_samples(model: Model) -> None:
    first, second = editing.seed_starts(model, [3, 8], EULER)
    made = last(editing.interpolate_steps(model, first, second, [0.0, 0.5, 1.0], EULER, 1)).x
    samples = last(sample_steps(model, [3, 8], [1, 1], EULER)).x
    torch.testing.assert_close(made[[0, 2]], samples, rtol=1e-4, atol=1e-4)


def test_an_inversion_follows_the_flow_up(exact: Callable[[Predict], Model]) -> None:
    model = exact(without_variance(gaussian(MEAN, STD)))
    errors = []
    for steps in (20, 40):
        sampling = SamplingConfig(sampler="heun", steps=steps)
        reached = last(editing.invert_steps(model, X[None], sampling))
        lowest, highest = torch.tensor(0.002), torch.tensor(80.0)
        assert reached.sigma == pytest.approx(80.0)
        errors.append(float((reached.x - on_the_path(X[None], lowest, highest, MEAN, STD)).abs().max() / 80))
    assert errors[1] < errors[0] / 3  # Of second order.
    assert errors[1] < 0.03


def test_an_image_comes_back_from_its_noise(exact: Callable[[Predict], Model]) -> None:
    model = exact(without_variance(gaussian(MEAN, STD)))
    sampling = SamplingConfig(sampler="heun", steps=40)
    first, second = last(editing.invert_steps(model, torch.stack([X, -X]), sampling)).x
    back = last(editing.interpolate_steps(model, first, second, [0.0, 1.0], sampling)).x
    assert (back - torch.stack([X, -X])).abs().max() < 2 / 255


@pytest.mark.parametrize(
    ("sampling", "does"),
    [
        (SamplingConfig(sampler="ancestral"), True),
        (SamplingConfig(sampler="ddim"), False),
        (SamplingConfig(sampler="ddim", eta=0.5), True),
        (SamplingConfig(sampler="heun"), False),
        (SamplingConfig(sampler="heun", s_churn=3.0), True),
        (SamplingConfig(sampler="ipndm", eta=1.0), False),
    ],
)
def test_interpolation_refuses_fresh_noise(model: Model, sampling: SamplingConfig, does: bool) -> None:
    assert adds_noise(sampling) == does
    if does:
        with pytest.raises(ValueError, match="adds fresh noise"):
            editing.invert_steps(model, X[None], sampling)


def test_one_step_leads_no_image_back(model: Model) -> None:
    with pytest.raises(ValueError, match="--steps 1 cannot lead an image back"):
        editing.invert_steps(model, X[None], replace(EULER, steps=1))


def test_slerp_keeps_the_length_and_moves_evenly() -> None:
    a, b = normal(50), normal(50, seed=1)
    b = b * a.norm() / b.norm()
    points = torch.stack([editing.slerp(a, b, i / 4) for i in range(5)])
    torch.testing.assert_close(points.norm(dim=1), a.norm().expand(5))
    torch.testing.assert_close(points[[0, 4]], torch.stack([a, b]))
    distances = points.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(distances, distances[0].expand(4))
    torch.testing.assert_close(editing.slerp(a, a, 0.3), a)


def test_a_restored_image_gives_its_measurement(exact: Callable[[Predict], Model]) -> None:
    model = exact(without_variance(gaussian(MEAN, STD)))
    operator = area_downsampling(model.shape, (2, 2))
    y = operator(X[None])[0]
    made = last(editing.restore_steps(model, operator, y, range(4), SamplingConfig(sampler="heun"))).x
    assert float((operator(made) - y).square().mean().sqrt()) < 2 * editing.NOISE_STD
    assert float(made.std(dim=0).mean()) > STD / 2, "what the measurement does not say differs from seed to seed"


def test_no_label_is_the_label_of_no_class(model: Model) -> None:
    expected = last(sample_steps(model, [0], [NO_LABEL], EULER)).x
    found = last(editing.vary_steps(model, X, [0], replace(EULER, guidance=3.0), strength=1.0)).x
    np.testing.assert_array_equal(found, expected)
