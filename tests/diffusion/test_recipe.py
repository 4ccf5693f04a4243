"""Each name in a recipe stands for the function of that name, and settings that make no sense are refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.tensors import normal
from pydantic import ValidationError
from torch import Tensor

from undiffuse.diffusion import loss, noise, parametrization
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.sigma_samplers import LossSecondMomentResampler
from undiffuse.utils.validation import sentence

U = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


def test_each_schedule_is_that_of_its_betas() -> None:
    for length in (50, 1000):
        linear = DiffusionConfig(schedule="linear", num_timesteps=length)
        assert torch.equal(linear.discrete_schedule(), noise.sigmas_of_betas(noise.linear_betas(length)))
        cosine = DiffusionConfig(schedule="cosine", num_timesteps=length)
        assert torch.equal(cosine.discrete_schedule(), noise.sigmas_of_betas(noise.cosine_betas(length)))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_each_parametrization_is_the_function_of_its_name(schedule: str) -> None:
    recipe = DiffusionConfig(schedule=schedule, sigma_data=0.7)
    sigma = torch.tensor([0.02, 0.5, 3.0, 70.0], dtype=torch.float64)
    c_noise = parametrization.discrete_index(recipe.discrete_schedule())
    functions = {
        "eps": parametrization.eps(c_noise),
        "x0": parametrization.x0(c_noise),
        "v": parametrization.v(c_noise),
        "flow": parametrization.flow,
        "edm": parametrization.edm(0.7),
    }
    for name, function in functions.items():
        ours_of = replace(recipe, parametrization=name).make_parametrization()
        for ours, expected in zip(ours_of(sigma), function(sigma), strict=True):
            assert torch.equal(ours, expected)


def test_each_sigma_sampler_is_the_function_of_its_name() -> None:
    recipe = DiffusionConfig(sigma_mean=-0.4, sigma_std=1.7)
    quantiles = {
        "discrete_uniform": noise.discrete_uniform(recipe.discrete_schedule()),
        "log_normal": noise.log_normal(-0.4, 1.7),
        "logit_normal": noise.logit_normal(-0.4, 1.7),
    }
    for name, quantile in quantiles.items():
        sigma, weight = replace(recipe, sigma_sampler=name).make_sigma_sampler().sample(U)
        assert torch.equal(sigma, quantile(U))
        assert torch.equal(weight, torch.ones_like(U))
    recipe = replace(recipe, sigma_sampler="loss_second_moment", schedule="cosine", num_timesteps=30)
    resampler = recipe.make_sigma_sampler()
    assert isinstance(resampler, LossSecondMomentResampler)
    assert torch.equal(resampler.sigmas, noise.sigmas_of_betas(noise.cosine_betas(30)))
    assert resampler.losses.shape == (30, 10)  # Nichol & Dhariwal 2021, section 3.3: the last ten.
    assert resampler.uniform_prob == 0.001


def test_by_default_noise_levels_are_edms() -> None:
    """Karras et al. 2022, Table 1: ln sigma is normal with mean -1.2 and standard deviation 1.2."""
    u = torch.special.ndtr(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    found = DiffusionConfig().make_sigma_sampler().sample(u).sigma
    torch.testing.assert_close(found.log(), torch.tensor([-2.4, -1.2, 0.0], dtype=torch.float64))


def test_each_run_has_a_sigma_sampler_of_its_own() -> None:
    recipe = DiffusionConfig(sigma_sampler="loss_second_moment")
    assert recipe.make_sigma_sampler() is not recipe.make_sigma_sampler()


def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    return torch.cat([torch.tanh(x), torch.sin(x)], dim=1)


BATCH = normal(5, 1, 4, 4).clamp(-1, 1), normal(5, 1, 4, 4, seed=1)


@pytest.mark.parametrize("name", ["eps", "x0", "v", "flow", "edm"])
def test_each_weight_is_the_function_of_its_name(name: str) -> None:
    recipe = DiffusionConfig(parametrization=name, sigma_sampler="discrete_uniform", min_snr_gamma=2.0, sigma_data=0.7)
    sigma, simple = recipe.discrete_schedule()[[0, 100, 300, 600, 999]], partial(loss.denoising_loss, network)
    weights = {"none": None, "min_snr": loss.min_snr(2.0), "edm": loss.edm_weight(0.7)}
    if name == "edm":
        del weights["edm"]
        with pytest.raises(ValueError, match="already"):
            replace(recipe, weight="edm")
    for weight_name, weight in weights.items():
        ours = replace(recipe, weight=weight_name).make_loss()(network, x0=BATCH[0], eps=BATCH[1], sigma=sigma)
        assert torch.equal(ours, simple(recipe.make_parametrization(), *BATCH, sigma, weight=weight))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("name", ["eps", "x0", "v", "flow", "edm"])
def test_each_objective_is_the_function_of_its_name(name: str, schedule: str) -> None:
    recipe = DiffusionConfig(parametrization=name, sigma_sampler="discrete_uniform", schedule=schedule)
    sigmas = recipe.discrete_schedule()
    sigma = sigmas[[0, 100, 300, 600, 999]]
    for objective, function in {"hybrid": loss.hybrid_loss, "vlb": loss.vlb_loss}.items():
        chosen = replace(recipe, objective=objective)
        assert chosen.learned_variance
        ours = chosen.make_loss()(network, x0=BATCH[0], eps=BATCH[1], sigma=sigma)
        assert torch.equal(ours, function(network, recipe.make_parametrization(), sigmas, *BATCH, sigma))
    assert not recipe.learned_variance


DISCRETE = DiffusionConfig(sigma_sampler="discrete_uniform", schedule="cosine")


@pytest.mark.parametrize("sigma_sampler", ["discrete_uniform", "loss_second_moment"])
def test_a_discrete_model_samples_within_its_schedule(sigma_sampler: str) -> None:
    recipe = replace(DISCRETE, sigma_sampler=sigma_sampler)
    schedule = recipe.discrete_schedule()
    assert recipe.is_discrete
    assert recipe.sigma_range() == (schedule[0], schedule[-1])
    assert torch.equal(recipe.discrete_sigmas(25), noise.discrete_sigmas(noise.strided(1000, "25"), schedule))
    low, high = float(schedule[0]), float(schedule[-1])
    assert torch.equal(recipe.log_snr_sigmas(25), noise.log_snr_sigmas(25, low, high))
    # From the noisiest level to sigma_max in one step, and Karras et al.'s sigmas from there.
    assert recipe.karras_sigmas(25)[0] == high > recipe.sigma_max
    assert recipe.karras_sigmas(1)[0] == pytest.approx(high, rel=1e-12)
    assert torch.equal(recipe.karras_sigmas(25)[1:], noise.karras_sigmas(24, low, recipe.sigma_max))
    uncut = replace(recipe, sigma_max=1e6)
    assert torch.equal(uncut.karras_sigmas(25), noise.karras_sigmas(25, low, high))


@pytest.mark.parametrize("sigma_sampler", ["log_normal", "logit_normal"])
def test_a_continuous_model_samples_within_its_range(sigma_sampler: str) -> None:
    recipe = DiffusionConfig(sigma_sampler=sigma_sampler, sigma_min=0.01, sigma_max=50.0)
    assert not recipe.is_discrete
    assert recipe.sigma_range() == (0.01, 50.0)
    assert torch.equal(recipe.karras_sigmas(25), noise.karras_sigmas(25, 0.01, 50.0))
    assert torch.equal(recipe.log_snr_sigmas(2000), noise.log_snr_sigmas(2000, 0.01, 50.0))
    with pytest.raises(ValueError, match="was not trained on a discrete schedule: choose sigmas karras or log_snr"):
        recipe.discrete_sigmas(25)


@pytest.mark.parametrize("steps", [1, 2, 7, 999, 1000])
def test_discrete_sigmas_go_from_the_noisiest_level_to_0(steps: int) -> None:
    for recipe in (DISCRETE, replace(DISCRETE, schedule="linear")):
        schedule, sigmas = recipe.discrete_schedule(), recipe.discrete_sigmas(steps)
        assert len(sigmas) == steps + 1
        assert sigmas[0] == schedule[-1]
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()
        assert torch.isin(sigmas[:-1], schedule).all()
        assert steps == 1 or sigmas[-2] == schedule[0]
    assert steps < 1000 or torch.equal(sigmas[:-1], schedule.flip(0)), "as many steps as timesteps take all of them"


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_discrete_sigmas_refuse_steps_that_do_not_exist(steps: int) -> None:
    with pytest.raises(
        ValueError, match=f"^{steps} steps do not fit this model's discrete schedule: choose between 1 and 1000"
    ):
        DISCRETE.discrete_sigmas(steps)


def test_the_shortest_schedules_are_finite_and_rising() -> None:
    for config in (DiffusionConfig(num_timesteps=21), DiffusionConfig(schedule="cosine", num_timesteps=2)):
        schedule = config.discrete_schedule()
        assert torch.isfinite(schedule).all()
        assert (schedule.diff() > 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_timesteps": 20}, "num_timesteps 20 does not fit the linear schedule: choose between 21 and 1,000,000"),
        ({"schedule": "cosine", "num_timesteps": 1}, "num_timesteps 1 does not fit the cosine schedule"),
        ({"num_timesteps": 10**30}, "does not fit the linear schedule"),
        ({"sigma_min": 0.0}, "sigma_min 0.0 and sigma_max 80.0 are not a range"),
        ({"sigma_min": 2.0, "sigma_max": 2.0}, "sigma_min 2.0 and sigma_max 2.0 are not a range"),
        ({"sigma_max": float("nan")}, "sigma_max nan: Input should be a finite number"),
        ({"sigma_data": 0.0}, "sigma_data 0.0: Input should be greater than 0"),
        ({"min_snr_gamma": 0.0}, "min_snr_gamma 0.0: Input should be greater than 0"),
        ({"objective": "hybrid"}, "choose sigma_sampler discrete_uniform or loss_second_moment"),
        ({"objective": "vlb", "sigma_sampler": "logit_normal"}, "objective vlb learns the variance between timesteps"),
        (
            {"objective": "vlb", "sigma_sampler": "loss_second_moment", "weight": "edm"},
            "weight edm does not apply to objective vlb: choose weight none",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict, words: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        DiffusionConfig(**settings)
    assert words in sentence(refusal.value)
