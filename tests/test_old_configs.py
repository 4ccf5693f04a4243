"""A config.json from before the renames reads and means the same, and `--set` takes old names too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from undiffuse.config import (
    Config,
    flat,
    from_dict,
    read_config,
    to_json,
    with_settings,
)
from undiffuse.diffusion import noise
from undiffuse.diffusion.sigma_samplers import LossSecondMomentResampler
from undiffuse.old_names import RENAMED_VALUES, RENAMES, current_name


@pytest.fixture
def config(preset_config: Callable[[str], Config]) -> Config:
    # Discrete, so that every old value is one that it can have.
    return with_settings(preset_config("small"), ["diffusion.sigma_sampler=discrete_uniform"])


OLD_RUNS = Path(__file__).parent / "fixtures" / "old_runs"


def old_config(run: str) -> tuple[dict[str, Any], Config]:
    """A config.json with old names, as it is and as it is read."""
    file = OLD_RUNS / run / "config.json"
    return json.loads(file.read_text()), read_config(file)


@pytest.mark.parametrize("run", ["continuous", "discrete"])
def test_an_old_config_keeps_every_value(run: str) -> None:
    old, config = old_config(run)
    assert from_dict(json.loads(to_json(config))) == config
    values = flat(config)
    for group, settings in old.items():
        for name, value in settings.items() if isinstance(settings, dict) else ():
            setting = RENAMES.get(f"{group}.{name}", f"{group}.{name}")
            new = RENAMED_VALUES.get((setting, value), value) if isinstance(value, str) else value
            assert values[setting] == new, setting


def test_an_old_continuous_run_means_the_same() -> None:
    _, config = old_config("continuous")
    u = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    assert torch.equal(config.diffusion.make_sigma_sampler().sample(u).sigma, noise.log_normal(-1.0, 1.1)(u))
    assert torch.equal(config.diffusion.log_snr_sigmas(6), noise.log_snr_sigmas(6, 0.002, 80.0))
    assert (config.sampling.sampler, config.sampling.sigmas) == ("heun", "log_snr")
    churn = config.sampling.s_churn, config.sampling.s_tmin, config.sampling.s_tmax, config.sampling.s_noise
    assert churn == (20.0, 0.1, 40.0, 1.01)
    assert config.optimizer.decay_fraction == 0.4


def test_an_old_discrete_run_means_the_same() -> None:
    _, config = old_config("discrete")
    diffusion = config.diffusion
    schedule = noise.sigmas_of_betas(noise.cosine_betas(50))
    assert torch.equal(diffusion.discrete_schedule(), schedule)
    resampler = diffusion.make_sigma_sampler()
    assert isinstance(resampler, LossSecondMomentResampler)
    assert torch.equal(resampler.sigmas, schedule)
    assert (config.sampling.sampler, config.sampling.sigmas, config.sampling.variance) == (
        "ancestral",
        "discrete",
        "learned",
    )
    assert diffusion.learned_variance


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("sampling.churn=40", "sampling.s_churn", 40.0),
        ("sampling.churn_noise=1", "sampling.s_noise", 1.0),
        ("sampling.grid=log_snr", "sampling.sigmas", "log_snr"),
        ("sampling.grid=chain", "sampling.sigmas", "discrete"),
        ("sampling.sigmas=chain", "sampling.sigmas", "discrete"),
        ("diffusion.draw=loss_aware", "diffusion.sigma_sampler", "loss_second_moment"),
        ("diffusion.chain_length=50", "diffusion.num_timesteps", 50),
        ("optimizer.decay_share=0.1", "optimizer.decay_fraction", 0.1),
    ],
)
def test_old_names_go_on_working_in_settings(setting: str, name: str, value: Any, config: Config) -> None:
    assert flat(with_settings(config, (setting,))) == flat(config) | {name: value}


def test_every_rename_leads_to_a_setting_of_the_same_group(config: Config) -> None:
    settings = flat(config)
    for old, new in RENAMES.items():
        assert old not in settings
        assert new in settings
        assert old.partition(".")[0] == new.partition(".")[0]
        assert current_name(old.partition(".")[2], old.partition(".")[0]) == new.partition(".")[2]
    for setting, old_value in RENAMED_VALUES:
        assert flat(with_settings(config, (f"{setting}={RENAMED_VALUES[setting, old_value]}",)))
