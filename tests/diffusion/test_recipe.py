"""The words of a recipe stand for the functions of the same name, and settings that make no sense are refused."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from undiffuse.diffusion import noise, parametrization
from undiffuse.diffusion.recipe import DiffusionConfig

U = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


def test_each_schedule_is_its_chain() -> None:
    for length in (50, 1000):
        linear = DiffusionConfig(schedule="linear", chain_length=length)
        assert torch.equal(linear.chain(), noise.sigmas_of_betas(noise.linear_betas(length)))
        cosine = DiffusionConfig(schedule="cosine", chain_length=length)
        assert torch.equal(cosine.chain(), noise.sigmas_of_betas(noise.cosine_betas(length)))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_each_parametrization_is_the_function_of_its_name(schedule: Literal["linear", "cosine"]) -> None:
    recipe = DiffusionConfig(schedule=schedule, sigma_data=0.7)
    sigma = torch.tensor([0.02, 0.5, 3.0, 70.0], dtype=torch.float64)
    clock = parametrization.chain_clock(recipe.chain())
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
        assert torch.equal(replace(recipe, draw=name).sigma_draw()(U), draw(U))


def test_sampling_walks_the_chain_where_training_drew_from_it_and_karras_levels_elsewhere() -> None:
    on_the_chain = DiffusionConfig(draw="discrete_uniform", schedule="cosine")
    assert torch.equal(on_the_chain.grid(25), noise.strided_grid(25, on_the_chain.chain()))
    for draw in ("log_normal", "logit_normal"):
        off_the_chain = DiffusionConfig(draw=draw, sigma_min=0.01, sigma_max=50.0)
        assert torch.equal(off_the_chain.grid(25), noise.karras_grid(25, 0.01, 50.0))


@pytest.mark.parametrize("steps", [0, 1001])
def test_a_grid_refuses_step_counts_that_the_recipe_does_not_have(steps: int) -> None:
    with pytest.raises(ValueError, match=f"^{steps} steps do not fit"):
        DiffusionConfig(draw="discrete_uniform").grid(steps)


def test_a_grid_off_the_chain_takes_any_number_of_steps_but_none() -> None:
    assert len(DiffusionConfig().grid(2000)) == 2001
    with pytest.raises(ValueError, match=r"^0 sampling steps are too few"):
        DiffusionConfig().grid(0)


def test_the_shortest_chains_that_are_accepted_have_finite_rising_levels() -> None:
    for config in (DiffusionConfig(chain_length=21), DiffusionConfig(schedule="cosine", chain_length=2)):
        chain = config.chain()
        assert torch.isfinite(chain).all()
        assert (chain.diff() > 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chain_length": 20}, "chain_length 20 does not fit the linear schedule: choose between 21 and 1,000,000"),
        ({"schedule": "cosine", "chain_length": 1}, "chain_length 1 does not fit the cosine schedule"),
        ({"chain_length": 10**30}, "does not fit the linear schedule"),
        ({"sigma_min": 0.0}, "sigma_min 0.0 and sigma_max 80.0 are no range"),
        ({"sigma_min": 2.0, "sigma_max": 2.0}, "sigma_min 2.0 and sigma_max 2.0 are no range"),
        ({"sigma_max": float("nan")}, "sigma_max nan are no range"),
        ({"sigma_data": 0.0}, "sigma_data 0.0 is no standard deviation"),
    ],
)
def test_settings_that_leave_no_noise_levels_are_refused_by_name(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffusionConfig(**settings)
