"""How a run is sampled: with its own options unless others are given."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from undiffuse.config import Config, SamplingConfig, with_settings
from undiffuse.diffusion.recipe import SIGMAS, DiffusionConfig
from undiffuse.diffusion.sampler_table import SAMPLERS, options, users
from undiffuse.old_names import current_name
from undiffuse.utils.device import resolved
from undiffuse.utils.names import TUNABLE, SamplingPrecision
from undiffuse.utils.parsing import parse_interval

Settings = Sequence[str] | Mapping[str, object]
"""Further options of sampling: ("eta=0.5",) or {"eta": 0.5}."""


def sampling_config(
    config: Config,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    precision: SamplingPrecision | None = None,
    settings: Sequence[str] = (),
    guidance_interval: str | tuple[float, float] | None = None,
    guide: bool = False,
) -> SamplingConfig:
    """The run's sampling options, overridden by those that are given; each setting is "NAME=VALUE".

    `guide`: whether the model is guided by another one, and not by itself without labels.

    Raises:
        ValueError: an option is out of range, would do nothing, or the model cannot do it.
    """
    given: dict[str, object] = {"sampler": sampler, "steps": steps, "guidance": guidance, "precision": precision}
    if guidance_interval is not None:
        given["guidance_interval"] = json.dumps(parse_interval(guidance_interval))
    settings = [*settings, *(f"{name}={value}" for name, value in given.items() if value is not None)]
    named = {current_name(setting.partition("=")[0], "sampling") for setting in settings}
    known = [field.name for field in fields(SamplingConfig)]
    unknown = sorted(named - set(known))
    if unknown:
        raise ValueError(f"--set {unknown[0]} is not a setting of sampling: choose {', '.join(known)}.")
    sampling = with_settings(config, [f"sampling.{setting}" for setting in settings]).sampling
    if guide and sampling.guidance == 1:
        raise ValueError("--guide does nothing at guidance 1: give --guidance 2 or the like.")
    if not guide and config.is_conditional and config.training.label_dropout == 0 and "guidance" not in named:
        sampling = replace(sampling, guidance=1.0)  # A preset's own guidance needs what this run did not learn.
    if "guidance_interval" in named and sampling.guidance == 1:
        raise ValueError("--guidance-interval does nothing at guidance 1: give --guidance 2 or the like.")
    if named & {"guidance", "guidance_interval"} and sampling.guidance != 1 and not guide:
        check_guidance(config)
    sampling = _adapted(sampling, named, config.sampling)
    for name in named & options().keys():
        if sampling.sampler not in users(name):
            raise ValueError(
                f"--set {name} does nothing for {sampling.sampler}: it is for {' and '.join(users(name))}."
            )
    if sampling.sigmas == "tuned" and sampling.sampler not in TUNABLE:
        raise ValueError(f"{sampling.sampler} cannot have tuned noise levels: choose {', '.join(TUNABLE)}.")
    # Fails for steps that the model does not have; tuned levels are looked up later, and lie in the same range.
    levels = noise_levels(
        config.diffusion, replace(sampling, sigmas="auto") if sampling.sigmas == "tuned" else sampling
    )
    if sampling.guidance_interval is not None and "guidance_interval" in named:
        low, high = sampling.guidance_interval
        if not bool(((low < levels) & (levels <= high)).any()):
            raise ValueError(
                f"--guidance-interval {low:g}-{high:g} has none of the {sampling.steps} noise levels of these steps: "
                "make it wider, or give more --steps."
            )
    return sampling


def asks_guidance(
    guidance: float | None, guidance_interval: str | tuple[float, float] | None, settings: Sequence[str]
) -> bool:
    """Whether guidance was asked for, rather than being the run's own."""
    named = {current_name(setting.partition("=")[0], "sampling") for setting in settings}
    return guidance is not None or guidance_interval is not None or bool(named & {"guidance", "guidance_interval"})


def with_acting_guidance(sampling: SamplingConfig, told: bool, asked: bool) -> SamplingConfig:
    """The same, at guidance 1 where a model with conditions is `told` nothing that guidance could strengthen.

    Raises:
        ValueError: guidance was `asked` for, and would do nothing.
    """
    if sampling.guidance == 1 or told:
        return sampling
    if asked:
        raise ValueError(
            f"--guidance {sampling.guidance:g} has nothing to strengthen here: say with --label or --attribute what to "
            "make, or give a weaker model with --guide."
        )
    return replace(sampling, guidance=1.0, guidance_interval=None)


def _adapted(sampling: SamplingConfig, named: set[str], own: SamplingConfig) -> SamplingConfig:
    """The run's own sampler fits its own number of steps: where one of them is given alone, the other follows.

    Few steps alone replace a slow sampler by the one that is best at few; a quick sampler alone replaces the thousands
    of steps of a slow one by the default number.
    """
    if not isinstance(sampling.sigmas, str):
        if "steps" not in named:
            return replace(sampling, steps=len(sampling.sigmas))
        if "sigmas" not in named and len(sampling.sigmas) != sampling.steps:
            sampling = replace(sampling, sigmas="auto")  # The run's own levels are those of another number of steps.
    if "steps" in named and not named & {"sampler", "sigmas", *options()}:
        return at_few_steps(sampling)
    if "steps" not in named and is_slow(own.sampler) and not is_slow(sampling.sampler):
        return replace(sampling, steps=SamplingConfig().steps)
    return sampling


def on_device(sampling: SamplingConfig, device: torch.device) -> SamplingConfig:
    """The same with precision auto as what it is on this device, which is what must be recorded."""
    return replace(sampling, precision=resolved(device, sampling.precision))


def is_slow(sampler: str) -> bool:
    """Whether the sampler is worth using with many steps only."""
    return SAMPLERS[sampler].min_steps > 1


def adds_noise(sampling: SamplingConfig) -> bool:
    """Whether the sampler adds fresh noise with these options, rather than following the probability flow."""
    row = SAMPLERS[sampling.sampler]
    amounts = [getattr(sampling, option.name) for option in row.options if option.name in ("eta", "s_churn")]
    return row.adds_noise and (not amounts or any(amounts))


def at_few_steps(sampling: SamplingConfig) -> SamplingConfig:
    """The same, but where the steps are few for its sampler, with the sampler that is best at few."""
    if sampling.steps < SAMPLERS[sampling.sampler].min_steps:
        return replace(sampling, sampler="ipndm", sigmas="auto")
    return sampling


def noise_levels(diffusion: DiffusionConfig, sampling: SamplingConfig) -> Tensor:
    """The falling sigmas of the steps, ending in 0, float64, `(steps + 1,)`.

    Raises:
        ValueError: the number of steps does not fit the model's discrete schedule, or it has none; the levels are
            others than so many, or are to be tuned ones, and there are none.
    """
    if sampling.sigmas == "tuned":
        raise ValueError(
            f"There are no tuned noise levels for {sampling.steps} {sampling.sampler} steps: choose sigmas auto."
        )
    if not isinstance(sampling.sigmas, str):
        if len(sampling.sigmas) != sampling.steps:
            raise ValueError(
                f"{len(sampling.sigmas)} noise levels do not fit {sampling.steps} steps: give one for each step."
            )
        return torch.tensor([*sampling.sigmas, 0.0], dtype=torch.float64)
    discrete = diffusion.is_discrete and SAMPLERS[sampling.sampler].discrete
    auto = "discrete" if discrete else SAMPLERS[sampling.sampler].sigmas
    return SIGMAS[auto if sampling.sigmas == "auto" else sampling.sigmas](diffusion, sampling.steps)


def check_guidance(config: Config) -> None:
    """Raises ValueError where the model never learned to denoise without a label, which guidance compares with."""
    if not config.is_conditional:
        raise ValueError("--guidance has nothing to strengthen: this model was trained without classes.")
    if config.training.label_dropout == 0:
        more = "the attributes" if config.attributes else "another image"
        what = "the class" if config.class_names else more
        raise ValueError(
            f"This model always saw {what} in training (label_dropout 0): it cannot do guidance, or label none."
        )


def as_settings(set: Settings) -> list[str]:
    """Options as the command line writes them, "NAME=VALUE" each."""
    if isinstance(set, Mapping):
        return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in set.items()]
    return [set] if isinstance(set, str) else list(set)
