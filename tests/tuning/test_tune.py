"""Tuning on Gaussian images, whose trajectories have closed forms; and what becomes of an interrupted search."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.gaussians import gaussian, on_the_path
from torch import Tensor

from undiffuse.config import Config
from undiffuse.diffusion.denoiser import Predict, Prediction, without_variance
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import create_run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import noise_levels, sampling_config
from undiffuse.tuning.teacher import Memory, end_points, euler_costs, gits_sigmas, start, teacher_levels, trajectories
from undiffuse.tuning.tune import tune
from undiffuse.utils.conditions import Condition

STD = torch.linspace(0.05, 0.9, 64, dtype=torch.float64).view(1, 8, 8)
MEAN = 0.3
NEW = range(5, 25)
"""Seeds that are neither searched nor checked with."""


@pytest.fixture
def model(preset_config: Callable[[str], Config], small_network: UNetConfig, random_unet: Callable) -> Model:
    """The exact denoiser of Gaussian images, as a run's model."""
    config = replace(preset_config("small"), network=small_network)
    weights = random_unet(small_network).state_dict()
    run = create_run(Path("runs/one"), config)
    run.save(500, {"network": weights, "ema": weights}, {}, keep=1)
    return replace(load_model(run), predict=without_variance(gaussian(MEAN, STD)))


def error(model: Model, sampler: str, sigmas: tuple[float, ...]) -> float:
    """The exact error of the sampler along these levels, on new seeds."""
    sampling = sampling_config(model.config, sampler, len(sigmas))
    x = start(model, NEW, torch.tensor(sigmas[0]))
    exact = on_the_path(x, torch.tensor(sigmas[0]), torch.tensor(0.0), MEAN, STD)
    return float((end_points(model, sampling, sigmas, NEW) - exact.flatten(1)).square().mean().sqrt())


@pytest.mark.parametrize(("sampler", "steps"), [("ipndm", 6), ("dpmpp_2m", 5), ("heun", 3)])
def test_tuned_levels_have_a_smaller_exact_error_than_karras(model: Model, sampler: str, steps: int) -> None:
    sampling = sampling_config(model.config, sampler, steps)
    schedule, again = tune(model, sampling, Path("tuning"), minutes=1e-9)
    sigmas, karras = schedule.sampling.sigmas, noise_levels(model.diffusion, sampling)[:-1]
    assert not again
    assert sigmas[0] == karras[0]
    assert all(low < high for high, low in pairwise([*sigmas, 0.0]))
    assert error(model, sampler, tuple(sigmas)) < 0.7 * error(model, sampler, tuple(karras.tolist()))
    assert schedule.error == pytest.approx(error(model, sampler, tuple(sigmas)), rel=0.3), "other seeds, same error"
    assert tune(model, sampling, Path("tuning"), minutes=8) == (schedule, True)


def test_the_trajectories_of_many_steps_are_almost_exact(model: Model) -> None:
    sampling = sampling_config(model.config, "ipndm", 6)
    sigmas = teacher_levels(model, sampling)
    states, slopes = trajectories(model, sampling, NEW)
    x = states[0].view(-1, 1, 8, 8)
    for sigma, state, slope in zip(sigmas, states, slopes, strict=False):
        exact = on_the_path(x, sigmas[0], sigma, MEAN, STD)
        assert float((state - exact.flatten(1)).square().mean().sqrt()) < 1e-3 * float(sigma + 1)
        x0 = gaussian(MEAN, STD)(state.view_as(x), sigma.expand(len(x)), None)
        torch.testing.assert_close(slope, ((state.view_as(x) - x0) / sigma).flatten(1))


def test_euler_costs_are_those_of_euler_steps_and_gits_path_costs_least(model: Model) -> None:
    sampling = sampling_config(model.config, "ipndm", 6)
    sigmas = teacher_levels(model, sampling)
    states, slopes = trajectories(model, sampling, NEW)
    distance, deviation = euler_costs(sigmas, states, slopes)
    step = states[20] + (sigmas[30] - sigmas[20]) * slopes[20]
    assert float(distance[20, 30]) == pytest.approx(float((step - states[30]).norm(dim=1).mean()))
    assert (deviation <= distance + 1e-9).all(), "the way along the line does not count"
    path = gits_sigmas(sigmas, distance, 6)
    assert path[0] == float(sigmas[0])
    assert _sum(distance, sigmas, path) <= _sum(distance, sigmas, tuple(sigmas[[0, 12, 24, 36, 48, 59]].tolist()))


def _sum(cost: Tensor, sigmas: Tensor, path: tuple[float, ...]) -> float:
    nodes = [*(sigmas.tolist().index(sigma) for sigma in path), len(sigmas) - 1]
    return sum(float(cost[j, k]) for j, k in pairwise(nodes))


@pytest.mark.parametrize("sampler", ["ipndm", "dpmpp_2m", "heun"])
def test_what_is_remembered_changes_nothing_and_saves_calls(model: Model, sampler: str) -> None:
    sampling = sampling_config(model.config, sampler, 4)
    calls, memory = [0], Memory(20)
    counted = replace(model, predict=counting(model.predict, calls))
    for sigmas in [(80.0, 8.0, 1.0, 0.1), (80.0, 8.0, 1.0, 0.2), (80.0, 8.0, 0.9, 0.1), (80.0, 8.0, 1.0, 0.1)]:
        plain = end_points(model, sampling, sigmas, NEW)
        before = calls[0]
        assert torch.equal(end_points(counted, sampling, sigmas, NEW, memory.wrap(sigmas)), plain)
    assert calls[0] == before, "the first levels again"
    assert calls[0] == {"heun": 7 + 2 + 4}.get(sampler, 4 + 1 + 2)


def counting(predict: Predict, calls: list[int], most: int = 10**9) -> Predict:
    def counted(x: Tensor, sigma: Tensor, label: Condition = None) -> Prediction:
        calls[0] += 1
        if calls[0] > most:
            raise KeyboardInterrupt
        return predict(x, sigma, label)

    return counted


def test_an_interrupted_search_goes_on_to_the_same_levels(model: Model) -> None:
    sampling = sampling_config(model.config, "ipndm", 4)
    calls = [0]
    whole, _ = tune(replace(model, predict=counting(model.predict, calls)), sampling, Path("whole"), minutes=1e-9)
    for most in (90, 50):  # In the many steps, then in the search.
        interrupted = replace(model, predict=counting(model.predict, [0], most))
        with pytest.raises(KeyboardInterrupt):
            tune(interrupted, sampling, Path("parts"), minutes=1e-9)
    left = [0]
    schedule, again = tune(replace(model, predict=counting(model.predict, left)), sampling, Path("parts"), minutes=1e-9)
    assert (schedule, again) == (whole, False)
    assert left[0] <= calls[0] - 60, "many steps are not made again"


def test_steps_that_cannot_be_tuned_and_damaged_files_are_named(model: Model) -> None:
    with pytest.raises(ValueError, match="--steps 31 cannot be tuned"):
        tune(model, sampling_config(model.config, "ipndm", 31), Path("tuning"), minutes=1)
    sampling = sampling_config(model.config, "ipndm", 2)
    tune(model, sampling, Path("tuning"), minutes=1e-9)
    search, *teacher = [next(Path("tuning").glob("ipndm-2-*/search.json")), *Path("tuning").glob("teacher-*/*")]
    teacher[0].write_bytes(b"{}")
    search.write_text('{"images": 32}')
    with pytest.raises(ValueError, match=r"is damaged.*remove it and tune again"):
        tune(model, sampling, Path("tuning"), minutes=1e-9)
    search.write_text('{"images": 10000}')
    with pytest.raises(ValueError, match=r"search\.json is damaged"):
        tune(model, sampling, Path("tuning"), minutes=1e-9)
