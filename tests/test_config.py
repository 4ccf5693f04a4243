"""A config reads back from its file unchanged, and anything else is refused by name."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

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
from undiffuse.diffusion.sampler_table import options
from undiffuse.networks.unet import UNetConfig
from undiffuse.utils.names import PRESETS
from undiffuse.utils.validation import sentence


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
def test_a_config_reads_back_unchanged(preset: str, preset_config: Callable[[str], Config]) -> None:
    config = preset_config(preset)
    file = Path("config.json")
    file.write_text(to_json(config), encoding="utf-8")
    assert read_config(file) == config
    assert to_json(read_config(file)) == to_json(config)


@pytest.mark.parametrize(("objective", "channels"), [("simple", 1), ("hybrid", 2), ("vlb", 2)])
def test_the_network_has_variance_channels_where_learned(objective: str, channels: int, config: Config) -> None:
    diffusion = replace(config.diffusion, objective=objective, sigma_sampler="discrete_uniform")
    network = replace(config, diffusion=diffusion).build_network()
    assert network(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape == (2, channels, 8, 8)


def test_variance_learned_is_for_models_that_learn_it(config: Config) -> None:
    learns = ("diffusion.objective=hybrid", "diffusion.sigma_sampler=discrete_uniform", "sampling.variance=learned")
    assert with_settings(config, learns).sampling.variance == "learned"


def test_names_outside_ascii_read_back(config: Config) -> None:
    named = replace(config, class_names=("Schlüsselblume", "菊", "a\nb", "\ud83d"))
    Path("config.json").write_text(to_json(named), encoding="utf-8")
    visible = ("Schlüsselblume", "菊", "a\N{REPLACEMENT CHARACTER}b", "\N{REPLACEMENT CHARACTER}")
    assert read_config(Path("config.json")) == replace(named, class_names=visible)


def changed(config: Config, path: str, value: Any) -> str:
    """The config's JSON with one value replaced or added, whether it fits or not."""
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
        ("data/surprise", 1, "unknown setting data.surprise"),
        ("diffusion/surprise", 1, "unknown setting diffusion.surprise"),
        ("augmentation/surprise", 1, "unknown setting augmentation.surprise"),
        ("optimizer/surprise", 1, "unknown setting optimizer.surprise"),
        ("training/surprise", 1, "unknown setting training.surprise"),
        ("sampling/surprise", 1, "unknown setting sampling.surprise"),
        ("seed", "one", "seed 'one': "),
        ("seed", 1.5, "seed 1.5: "),
        ("seed", None, "seed None: "),
        ("seed", math.inf, "seed inf: "),
        ("preset", 3, "preset 3: "),
        ("version", 2, "config version 2 is not 1"),
        ("network", [], "network []: "),
        ("network", "unet", "network 'unet': "),
        ("network/channels", [64], "network.channels [64]: "),
        ("network/channels", 64.5, "network.channels 64.5: "),
        ("network/size", [32], "network.size"),
        ("network/size", [32, 32, 32], "network.size"),
        ("network/multipliers", {"0": 1}, "network.multipliers"),
        ("network/groups", 0, "network.groups 0: Input should be greater than or equal to 1"),
        ("network/heads", 10**40, "cannot be split"),
        ("network/size", [31, 31], "size 31x31 does not fit"),
        ("network/norm_eps", math.inf, "network.norm_eps inf: "),
        ("class_names", "cats", "class_names 'cats': "),
        ("class_names", [1, 2], "class_names.0 1: "),
        ("optimizer/betas", [0.9], "optimizer.betas"),
        ("optimizer/betas", [0.9, 1.0], "optimizer.betas.1 1.0: Input should be less than 1"),
        ("optimizer/betas", [0.9, math.inf], "optimizer.betas.1 inf: "),
        ("optimizer/learning_rate", math.nan, "optimizer.learning_rate nan: "),
        ("optimizer/learning_rate", 0, "optimizer.learning_rate 0: Input should be greater than 0"),
        ("optimizer/decay_fraction", 1.5, "optimizer.decay_fraction 1.5: Input should be less than or equal to 1"),
        ("augmentation/crop_ratio", math.inf, "augmentation.crop_ratio inf"),
        ("training/total_images", 1000, "A budget is either --images or --minutes"),
        ("training/batch", 0, "training.batch 0: Input should be greater than or equal to 1"),
        ("training/label_dropout", -0.1, "training.label_dropout -0.1: "),
        ("training/total_minutes", math.inf, "training.total_minutes inf: "),
        ("training/total_minutes", math.nan, "training.total_minutes nan: "),
        ("sampling/sampler", "magic", "sampling.sampler 'magic': Input should be 'ipndm', 'dpmpp_2m', 'heun'"),
        ("sampling/steps", -1, "sampling.steps -1: Input should be greater than or equal to 1"),
        ("sampling/steps", "x" * 100_000, "sampling.steps 'xxx"),
        ("sampling/eta", 1.5, "sampling.eta 1.5: Input should be less than or equal to 1"),
        ("sampling/order", 5, "sampling.order 5: Input should be less than or equal to 4"),
        ("sampling/s_churn", -1, "sampling.s_churn -1: "),
        ("sampling/s_noise", -0.5, "sampling.s_noise -0.5: "),
        ("sampling/s_tmax", 0.01, "sampling: s_tmax 0.01 is below s_tmin 0.05"),
        ("sampling/s_tmax", math.nan, "sampling.s_tmax nan: "),
        ("sampling/guidance", math.inf, "sampling.guidance inf: "),
        ("sampling/sigmas", "even", "sampling.sigmas: 'even' is not among auto, tuned, discrete, karras, log_snr"),
        ("sampling/sigmas", [3, 3, 1], "sampling.sigmas: [3, 3, 1] are not falling noise levels above 0"),
        ("sampling/sigmas", [math.inf, 1], "sampling.sigmas: [inf, 1] are not falling noise levels above 0"),
        ("sampling/sigmas", [3, "1"], "sampling.sigmas: [3, '1'] is not a list of 1 to 10,000 noise levels"),
        ("sampling/sigmas", [], "sampling.sigmas: [] is not a list of 1 to 10,000 noise levels"),
        ("sampling/variance", "learned", "variance learned needs diffusion.objective hybrid or vlb"),
        ("sampling/grid", "karras", "sampling.sigmas is there twice, once by an old name"),
        ("diffusion/parametrization", "e p s", "diffusion.parametrization 'e p s': "),
        ("diffusion/objective", "hybrid", "choose sigma_sampler discrete_uniform or loss_second_moment"),
        ("diffusion/weight", "heavy", "diffusion.weight 'heavy': "),
        ("diffusion/num_timesteps", 10**40, "does not fit the linear schedule"),
        ("diffusion/sigma_min", 1e308, "are not a range"),
    ],
)
def test_a_wrong_value_is_refused_by_name(path: str, value: Any, words: str, config: Config) -> None:
    assert words in refusal(changed(config, path, value))


def test_a_missing_setting_is_refused_by_name(config: Config) -> None:
    for name in ("preset", "seed", "data", "class_names", "network", "sampling"):
        assert f"({name} is missing)" in refusal(without(config, name))


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
def test_a_file_that_is_not_a_config_is_refused(content: bytes) -> None:
    refusal(content)


def test_deep_nesting_is_refused(config: Config) -> None:
    for depth in (500, 900, 5000):
        nested = '{"a":' * depth + "1" + "}" * depth
        refusal(to_json(config).replace('{\n  "preset"', '{\n  "surprise": ' + nested + ',\n  "preset"', 1))


def test_a_number_beyond_float_is_refused(config: Config) -> None:
    content = to_json(config).replace('"learning_rate": 0.002', '"learning_rate": 1e999')
    assert "1e999" in content
    assert "optimizer.learning_rate inf: Input should be a finite number" in refusal(content)


def test_integers_are_read_as_floats_and_lists_as_tuples(config: Config) -> None:
    values = json.loads(changed(config, "sampling/guidance", 2))
    assert from_dict(values).sampling.guidance == 2.0
    assert from_dict(values).network == config.network


def test_a_missing_file_is_a_file_not_found_error() -> None:
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
def test_a_setting_changes_nothing_else(setting: str, name: str, value: Any, config: Config) -> None:
    assert flat(with_settings(config, (setting,))) == flat(config) | {name: value}


def test_settings_are_applied_together(config: Config) -> None:
    # One change without the other would be refused.
    changed = with_settings(config, ("training.total_minutes=null", "training.total_images=5000"))
    assert (changed.training.total_images, changed.training.total_minutes) == (5000, None)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dropout=0.2", "write GROUP.NAME=VALUE with a name that --dry-run lists; did you mean network.dropout?"),
        ("network.chanels=64", "with a name that --dry-run lists; did you mean network.channels?"),
        ("network.dropout", "--set network.dropout: write GROUP.NAME=VALUE"),
        ("network=1", "--set network=1: write GROUP.NAME=VALUE"),
        ("seed=1", "--set seed=1: write GROUP.NAME=VALUE"),
        ("network.surprise=1", "write GROUP.NAME=VALUE with a name that --dry-run lists."),
        ("network.type=Mine", "write GROUP.NAME=VALUE"),
        ("nothing.dropout=1", "write GROUP.NAME=VALUE"),
        ("network.size.0=1", "write GROUP.NAME=VALUE"),
        (".=1", "write GROUP.NAME=VALUE"),
        ("", "write GROUP.NAME=VALUE"),
        ("network.dropout=much", "network.dropout 'much': "),
        ("network.dropout=NaN", "network.dropout nan: "),
        ("network.dropout=", "network.dropout '': "),
        ("network.size=[31,31]", "use --size instead"),
        ("sampling.sampler=magic", "sampling.sampler 'magic': "),
        ("training.total_images=5", "either --images or --minutes"),
        ("data.channels=2", "use the options for data instead"),
    ],
)
def test_a_setting_that_does_not_exist_or_fit_is_refused(setting: str, words: str, config: Config) -> None:
    with pytest.raises(ValueError) as refused:
        with_settings(config, (setting,))
    assert words in str(refused.value)


def test_differences_have_both_values_of_a_setting(config: Config) -> None:
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
        ({"total_images": 0, "total_minutes": None}, "total_images 0: Input should be greater than or equal to 1"),
        ({"total_minutes": -1.0}, "total_minutes -1.0: Input should be greater than 0"),
        ({"batch": -3}, "batch -3: Input should be greater than or equal to 1"),
        ({"microbatch": 0}, "microbatch 0: Input should be greater than or equal to 1"),
    ],
)
def test_an_empty_budget_or_batch_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        TrainingConfig(**settings)
    assert words in sentence(refusal.value)


def test_sampling_takes_at_least_one_step() -> None:
    assert SamplingConfig(steps=1).steps == 1
    with pytest.raises(ValidationError) as refusal:
        SamplingConfig(steps=0)
    assert sentence(refusal.value) == "steps 0: Input should be greater than or equal to 1"


def test_every_sampler_option_is_a_setting() -> None:
    names = [field.name for field in fields(SamplingConfig)]
    assert names[-len(options()) :] == list(options())
    for option in options().values():
        assert getattr(SamplingConfig(), option.name) == option.default


ADD_A_SAMPLER = """
from undiffuse.diffusion import samplers
from undiffuse.diffusion.sampler_table import SAMPLERS, Option, SamplerRow, options_help

def damped(denoise, x, sigmas, label=None, *, damping=0.5):
    for step in samplers.euler(denoise, x, sigmas, label):
        yield step._replace(x=damping * step.x)

samplers.damped = damped
SAMPLERS["damped"] = SamplerRow("a test", (Option("damping", float, 0.5, "how much"),))

from undiffuse.config import SamplingConfig, flat, with_settings
from undiffuse.presets import ImageFacts, configure
from undiffuse.data.store import DataConfig

config = configure("small", ImageFacts((8, 8), 1), DataConfig(), 0)
changed = with_settings(config, ["sampling.sampler=damped", "sampling.damping=0.25"])
assert flat(config)["sampling.damping"] == 0.5
assert (changed.sampling.sampler, changed.sampling.damping) == ("damped", 0.25)
assert "damping (damped: how much)" in options_help()
try:
    with_settings(config, ["sampling.damping=much"])
except ValueError as error:
    print(error)
"""


def test_a_sampler_is_added_by_a_function_and_a_row() -> None:
    # In a process of its own: the configs are made when they are imported.
    ran = subprocess.run([sys.executable, "-c", ADD_A_SAMPLER], capture_output=True, text=True, check=False)
    assert "sampling.damping 'much': Input should be a valid number" in ran.stdout, ran.stderr
