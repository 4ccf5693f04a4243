"""The words of a recipe stand for the functions of the same name, and settings that make no sense are refused."""

from dataclasses import replace
from functools import partial
from typing import Literal

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import loss, noise, parametrization
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.sigma_samplers import LossSecondMomentResampler

Schedule = Literal["linear", "cosine"]
Parametrization = Literal["eps", "x0", "v", "flow", "edm"]
Draw = Literal["discrete_uniform", "loss_aware", "log_normal", "logit_normal"]

U = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


def test_each_schedule_is_its_chain() -> None:
    for length in (50, 1000):
        linear = DiffusionConfig(schedule="linear", num_timesteps=length)
        assert torch.equal(linear.chain(), noise.sigmas_of_betas(noise.linear_betas(length)))
        cosine = DiffusionConfig(schedule="cosine", num_timesteps=length)
        assert torch.equal(cosine.chain(), noise.sigmas_of_betas(noise.cosine_betas(length)))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_each_parametrization_is_the_function_of_its_name(schedule: Schedule) -> None:
    recipe = DiffusionConfig(schedule=schedule, sigma_data=0.7)
    sigma = torch.tensor([0.02, 0.5, 3.0, 70.0], dtype=torch.float64)
    clock = parametrization.discrete_index(recipe.chain())
    functions = {
        "eps": parametrization.eps(clock),
        "x0": parametrization.x0(clock),
        "v": parametrization.v(clock),
        "flow": parametrization.flow,
        "edm": parametrization.edm(0.7),
    }
    for name, function in functions.items():
        ours_of = replace(recipe, parametrization=name).coefficients()
        for ours, expected in zip(ours_of(sigma), function(sigma), strict=True):
            assert torch.equal(ours, expected)


def test_each_draw_is_the_function_of_its_name() -> None:
    recipe = DiffusionConfig(draw_mean=-0.4, draw_std=1.7)
    draws = {
        "discrete_uniform": noise.discrete_uniform(recipe.chain()),
        "log_normal": noise.log_normal(-0.4, 1.7),
        "logit_normal": noise.logit_normal(-0.4, 1.7),
    }
    for name, draw in draws.items():
        sigma, weight = replace(recipe, draw=name).draws().draw(U)
        assert torch.equal(sigma, draw(U))
        assert torch.equal(weight, torch.ones_like(U))
    loss_aware = replace(recipe, draw="loss_aware", schedule="cosine", num_timesteps=30).draws()
    assert isinstance(loss_aware, LossSecondMomentResampler)
    assert torch.equal(loss_aware.sigmas, noise.sigmas_of_betas(noise.cosine_betas(30)))
    assert loss_aware.losses.shape == (30, 10)  # Nichol & Dhariwal 2021, section 3.3: the last ten.
    assert loss_aware.uniform_share == 0.001


def test_each_run_learns_its_own_draws() -> None:
    recipe = DiffusionConfig(draw="loss_aware")
    assert recipe.draws() is not recipe.draws()


def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    return torch.cat([torch.tanh(x), torch.sin(x)], dim=1)


BATCH = normal(5, 1, 4, 4).clamp(-1, 1), normal(5, 1, 4, 4, seed=1)


@pytest.mark.parametrize("name", ["eps", "x0", "v", "flow", "edm"])
def test_each_weight_is_the_function_of_its_name(name: Parametrization) -> None:
    recipe = DiffusionConfig(parametrization=name, draw="discrete_uniform", min_snr_gamma=2.0, sigma_data=0.7)
    sigma, simple = recipe.chain()[[0, 100, 300, 600, 999]], partial(loss.denoising_loss, network)
    weights = {"none": None, "min_snr": loss.min_snr(2.0), "edm": loss.edm_weight(0.7)}
    if name == "edm":
        del weights["edm"]
        with pytest.raises(ValueError, match="already"):
            replace(recipe, weight="edm")
    for word, weight in weights.items():
        ours = replace(recipe, weight=word).loss()(network, x0=BATCH[0], eps=BATCH[1], sigma=sigma)
        assert torch.equal(ours, simple(recipe.coefficients(), *BATCH, sigma, weight=weight))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("name", ["eps", "x0", "v", "flow", "edm"])
def test_each_objective_is_the_function_of_its_name(name: Parametrization, schedule: Schedule) -> None:
    recipe = DiffusionConfig(parametrization=name, draw="discrete_uniform", schedule=schedule)
    chain = recipe.chain()
    sigma = chain[[0, 100, 300, 600, 999]]
    for word, function in {"hybrid": loss.hybrid_loss, "vlb": loss.vlb_loss}.items():
        chosen = replace(recipe, objective=word)
        assert chosen.learned_variance
        ours = chosen.loss()(network, x0=BATCH[0], eps=BATCH[1], sigma=sigma)
        assert torch.equal(ours, function(network, recipe.coefficients(), chain, *BATCH, sigma))
    assert not recipe.learned_variance


ON_THE_CHAIN = DiffusionConfig(draw="discrete_uniform", schedule="cosine")


@pytest.mark.parametrize("draw", ["discrete_uniform", "loss_aware"])
def test_a_model_of_the_chain_walks_its_levels_and_knows_no_others(draw: Draw) -> None:
    recipe = replace(ON_THE_CHAIN, draw=draw)
    chain = recipe.chain()
    assert recipe.is_discrete
    assert recipe.sigma_range() == (chain[0], chain[-1])
    assert torch.equal(recipe.discrete_sigmas(25), noise.discrete_sigmas(noise.strided(1000, "25"), chain))
    low, high = float(chain[0]), float(chain[-1])
    assert torch.equal(recipe.log_snr_sigmas(25), noise.log_snr_sigmas(25, low, high))
    # From the noisiest level in one step to sigma_max, and Karras et al.'s levels from there.
    assert recipe.karras_sigmas(25)[0] == high > recipe.sigma_max
    assert recipe.karras_sigmas(1)[0] == pytest.approx(high, rel=1e-12)
    assert torch.equal(recipe.karras_sigmas(25)[1:], noise.karras_sigmas(24, low, recipe.sigma_max))
    tamer = replace(recipe, sigma_max=1e6)
    assert torch.equal(tamer.karras_sigmas(25), noise.karras_sigmas(25, low, high))


@pytest.mark.parametrize("draw", ["log_normal", "logit_normal"])
def test_a_model_of_a_continuum_walks_its_range_and_has_no_chain(draw: Draw) -> None:
    recipe = DiffusionConfig(draw=draw, sigma_min=0.01, sigma_max=50.0)
    assert not recipe.is_discrete
    assert recipe.sigma_range() == (0.01, 50.0)
    assert torch.equal(recipe.karras_sigmas(25), noise.karras_sigmas(25, 0.01, 50.0))
    assert torch.equal(recipe.log_snr_sigmas(2000), noise.log_snr_sigmas(2000, 0.01, 50.0))
    with pytest.raises(ValueError, match="was not trained on a chain of noise levels: choose grid karras or log_snr"):
        recipe.discrete_sigmas(25)


@pytest.mark.parametrize("steps", [1, 2, 7, 999, 1000])
def test_a_chains_grid_of_any_number_of_steps_starts_at_the_noisiest_level_and_ends_in_zero(steps: int) -> None:
    for recipe in (ON_THE_CHAIN, replace(ON_THE_CHAIN, schedule="linear")):
        chain, grid = recipe.chain(), recipe.discrete_sigmas(steps)
        assert len(grid) == steps + 1
        assert grid[0] == chain[-1]
        assert grid[-1] == 0
        assert (grid.diff() < 0).all()
        assert torch.isin(grid[:-1], chain).all()
        assert steps == 1 or grid[-2] == chain[0]
    assert steps < 1000 or torch.equal(grid[:-1], chain.flip(0)), "as many steps as levels walk the whole chain"


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_a_chains_grid_refuses_step_counts_that_the_chain_does_not_have(steps: int) -> None:
    with pytest.raises(ValueError, match=f"^{steps} steps do not fit this model's chain: choose between 1 and 1000"):
        ON_THE_CHAIN.discrete_sigmas(steps)


def test_the_shortest_chains_that_are_accepted_have_finite_rising_levels() -> None:
    for config in (DiffusionConfig(num_timesteps=21), DiffusionConfig(schedule="cosine", num_timesteps=2)):
        chain = config.chain()
        assert torch.isfinite(chain).all()
        assert (chain.diff() > 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_timesteps": 20}, "num_timesteps 20 does not fit the linear schedule: choose between 21 and 1,000,000"),
        ({"schedule": "cosine", "num_timesteps": 1}, "num_timesteps 1 does not fit the cosine schedule"),
        ({"num_timesteps": 10**30}, "does not fit the linear schedule"),
        ({"sigma_min": 0.0}, "sigma_min 0.0 and sigma_max 80.0 are no range"),
        ({"sigma_min": 2.0, "sigma_max": 2.0}, "sigma_min 2.0 and sigma_max 2.0 are no range"),
        ({"sigma_max": float("nan")}, "sigma_max nan are no range"),
        ({"sigma_data": 0.0}, "sigma_data 0.0 is no standard deviation"),
        ({"min_snr_gamma": 0.0}, "min_snr_gamma 0.0 is out of range"),
        ({"objective": "hybrid"}, "draw log_normal does not visit: choose draw discrete_uniform or loss_aware"),
        ({"objective": "vlb", "draw": "logit_normal"}, "objective vlb learns the variance of the chain's steps"),
        (
            {"objective": "vlb", "draw": "loss_aware", "weight": "edm"},
            "weight edm has no place in objective vlb: choose weight none",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffusionConfig(**settings)
