"""A config survives its file exactly, and a file that holds anything else is refused with its name."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from undiffuse.config import (
    Config,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    differences,
    flat,
    from_dict,
    read_config,
    to_json,
    with_settings,
)
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.utils.names import PRESETS


@pytest.fixture
def config(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Config:
    """A config that does not change when a preset does."""
    return replace(
        preset_config("small"),
        network=small_network,
        diffusion=DiffusionConfig(),
        optimizer=OptimizerConfig(learning_rate=0.002),
        training=TrainingConfig(total_images=None, total_minutes=30.0),
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_reads_back_from_its_file_as_it_was(preset: str, preset_config: Callable[[str], Config]) -> None:
    config = preset_config(preset)
    file = Path("config.json")
    file.write_text(to_json(config), encoding="utf-8")
    assert read_config(file) == config
    assert to_json(read_config(file)) == to_json(config)


@pytest.mark.parametrize(("objective", "channels"), [("simple", 1), ("hybrid", 2), ("vlb", 2)])
def test_a_config_builds_a_network_with_channels_for_the_variance_where_it_is_learned(
    objective: Literal["simple", "hybrid", "vlb"], channels: int, config: Config
) -> None:
    diffusion = replace(config.diffusion, objective=objective, draw="discrete_uniform")
    network = replace(config, diffusion=diffusion).build_network()
    assert network(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape == (2, channels, 8, 8)


def test_a_learned_variance_is_a_setting_of_models_that_learn_it(config: Config) -> None:
    learns = ("diffusion.objective=hybrid", "diffusion.draw=discrete_uniform", "sampling.variance=learned")
    assert with_settings(config, learns).sampling.variance == "learned"


def test_names_outside_ascii_read_back(config: Config) -> None:
    named = replace(config, class_names=("Schlüsselblume", "菊", "a\nb", "\ud83d"))
    Path("config.json").write_text(to_json(named), encoding="utf-8")
    assert read_config(Path("config.json")) == named


def changed(config: Config, path: str, value: Any) -> str:
    """The config's JSON with one value put in, whether it fits or not."""
    values = json.loads(to_json(config))
    *groups, name = path.split("/")
    owner = values
    for group in groups:
        owner = owner[group]
    owner[name] = value
    return json.dumps(values)


def without(config: Config, name: str) -> str:
    values = json.loads(to_json(config))
    del values[name]
    return json.dumps(values)


def refusal(content: str | bytes) -> str:
    """The one sentence with which a file of that content is refused."""
    file = Path("config.json").absolute()
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match="is not the config of a run") as refused:
        read_config(file)
    sentence = str(refused.value)
    assert sentence.startswith(f"{file} is not the config of a run (")
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("surprise", 1, "unknown setting surprise"),
        ("surprise", {}, "unknown setting surprise"),
        ("network/surprise", 1, "unknown setting network.surprise"),
        ("network/surprise", {"channels": 1}, "unknown setting network.surprise"),
        ("network.channels", 64, "unknown setting network.channels"),
        ("seed", "one", "seed: "),
        ("seed", 1.5, "seed: "),
        ("seed", None, "seed: "),
        ("preset", 3, "preset: "),
        ("network", [], "network: "),
        ("network", "unet", "network: "),
        ("network/channels", [64], "network.channels: "),
        ("network/channels", 64.5, "network.channels: "),
        ("network/size", [32], "network.size"),
        ("network/size", [32, 32, 32], "network.size"),
        ("network/multipliers", {"0": 1}, "network.multipliers: "),
        ("class_names", "cats", "class_names: "),
        ("class_names", [1, 2], "class_names.0: "),
        ("optimizer/betas", [0.9], "optimizer.betas"),
        ("sampling/sampler", "magic", "sampling.sampler: "),
        ("diffusion/parametrization", "e p s", "diffusion.parametrization: "),
        ("training/total_images", 1000, "A budget is either --images or --minutes"),
        ("training/batch", 0, "batch 0 is out of range"),
        ("sampling/steps", -1, "steps -1 is out of range"),
        ("sampling/eta", 1.5, "eta 1.5 is out of range: give from 0 to 1"),
        ("sampling/order", 5, "order 5 is out of range: give from 1 to 4"),
        ("sampling/churn", -1, "churn -1.0 is out of range"),
        ("sampling/churn_noise", -0.5, "churn_noise -0.5 is out of range"),
        ("sampling/churn_max", math.nan, "sampling.churn_max: nan is no finite number"),
        ("sampling/grid", "even", "sampling.grid: "),
        ("sampling/variance", "learned", "variance learned needs diffusion.objective hybrid or vlb"),
        ("diffusion/objective", "hybrid", "choose draw discrete_uniform or loss_aware"),
        ("diffusion/weight", "heavy", "diffusion.weight: "),
        ("network/groups", 0, "groups 0 is too few"),
        ("network/heads", 10**40, "cannot be split"),
        ("network/size", [31, 31], "size 31x31 does not fit"),
        ("diffusion/num_timesteps", 10**40, "does not fit the linear schedule"),
        ("diffusion/sigma_min", 1e308, "are no range"),
        ("optimizer/learning_rate", math.nan, "learning_rate nan is out of range"),
        ("optimizer/betas", [0.9, math.inf], "betas"),
        ("training/total_minutes", math.inf, "training.total_minutes: inf is no finite number"),
        ("training/total_minutes", math.nan, "budget nan is out of range"),
        ("seed", math.inf, "seed: "),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(path: str, value: Any, words: str, config: Config) -> None:
    assert words in refusal(changed(config, path, value))


def test_a_missing_setting_is_refused_by_its_name(config: Config) -> None:
    for name in ("preset", "seed", "data", "class_names", "network", "sampling"):
        assert f"({name}: Field required)" in refusal(without(config, name))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"[[1, 2], {}]",
        b"3",
        b'"config"',
        b"{}",
        b"{",
        b"NaN",
        b"1" * 5000,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"preset": ' + b"[" * 200_000,
        b"\xff\xfe\x00{",
        b"\x89PNG\r\n\x1a\n",
        b"\x00" * 100,
        b"{'preset': 'small'}",
        b"__import__('os').system('true')",
        random.Random(0).randbytes(1000),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_config_at_all_is_refused(content: bytes) -> None:
    refusal(content)


def test_deep_nesting_inside_an_unknown_setting_is_refused(config: Config) -> None:
    for depth in (500, 900, 5000):
        nested = '{"a":' * depth + "1" + "}" * depth
        refusal(to_json(config).replace('{\n  "preset"', '{\n  "surprise": ' + nested + ',\n  "preset"', 1))


def test_a_number_beyond_float_is_refused(config: Config) -> None:
    content = to_json(config).replace('"learning_rate": 0.002', '"learning_rate": 1e999')
    assert "1e999" in content
    assert "optimizer.learning_rate: inf" in refusal(content)


def test_integers_stand_for_whole_floats_and_lists_for_tuples(config: Config) -> None:
    values = json.loads(changed(config, "sampling/guidance", 2))
    assert from_dict(values).sampling.guidance == 2.0
    assert from_dict(values).network.multipliers == config.network.multipliers


def test_a_missing_file_stays_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        read_config(Path("none.json"))


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("network.dropout=0.2", "network.dropout", 0.2),
        ("network.multipliers=[1,1]", "network.multipliers", [1, 1]),
        ("network.scale_shift_norm=true", "network.scale_shift_norm", True),
        ("sampling.sampler=euler", "sampling.sampler", "euler"),
        ('sampling.sampler="ancestral"', "sampling.sampler", "ancestral"),
        ("sampling.guidance=3", "sampling.guidance", 3.0),
        ("optimizer.learning_rate=1e-4", "optimizer.learning_rate", 1e-4),
    ],
)
def test_a_setting_changes_what_it_names_and_nothing_else(setting: str, name: str, value: Any, config: Config) -> None:
    assert flat(with_settings(config, (setting,))) == flat(config) | {name: value}


def test_settings_are_applied_together(config: Config) -> None:
    # Neither budget alone: only both changes make sense.
    changed = with_settings(config, ("training.total_minutes=null", "training.total_images=5000"))
    assert (changed.training.total_images, changed.training.total_minutes) == (5000, None)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dropout=0.2", "--set dropout=0.2: write GROUP.NAME=VALUE"),
        ("network.dropout", "--set network.dropout: write GROUP.NAME=VALUE"),
        ("network=1", "--set network=1: write GROUP.NAME=VALUE"),
        ("seed=1", "--set seed=1: write GROUP.NAME=VALUE"),
        ("network.surprise=1", "write GROUP.NAME=VALUE"),
        ("nothing.dropout=1", "write GROUP.NAME=VALUE"),
        ("network.size.0=1", "write GROUP.NAME=VALUE"),
        (".=1", "write GROUP.NAME=VALUE"),
        ("", "write GROUP.NAME=VALUE"),
        ("network.dropout=much", "network.dropout: "),
        ("network.dropout=NaN", "dropout nan is out of range"),
        ("network.dropout=", "network.dropout: "),
        ("network.size=[31,31]", "use --size instead"),
        ("sampling.sampler=magic", "sampling.sampler: "),
        ("training.total_images=5", "either --images or --minutes"),
        ("data.channels=2", "use the options for data instead"),
    ],
)
def test_a_setting_that_does_not_exist_or_fit_is_refused(setting: str, words: str, config: Config) -> None:
    with pytest.raises(ValueError) as refused:
        with_settings(config, (setting,))
    assert words in str(refused.value)


def test_differences_name_each_changed_setting_with_both_values(config: Config) -> None:
    assert differences(config, config) == {}
    other = with_settings(replace(config, seed=8), ("network.channels=32", "network.multipliers=[1,1]"))
    assert differences(config, other) == {
        "seed": (7, 8),
        "network.channels": (16, 32),
        "network.multipliers": ([1, 2], [1, 1]),
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"total_images": None, "total_minutes": None}, "either --images or --minutes"),
        ({"total_images": 5, "total_minutes": 5.0}, "either --images or --minutes"),
        ({"total_images": 0, "total_minutes": None}, "budget 0 is out of range"),
        ({"total_minutes": -1.0}, r"budget -1\.0 is out of range"),
        ({"batch": -3}, "batch -3 is out of range"),
        ({"microbatch": 0}, "microbatch 0 is out of range"),
    ],
)
def test_a_training_budget_or_batch_of_nothing_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**settings)


def test_sampling_takes_at_least_one_step() -> None:
    assert SamplingConfig(steps=1).steps == 1
    with pytest.raises(ValueError, match=r"^steps 0 is out of range: give at least 1\.$"):
        SamplingConfig(steps=0)
