"""The table of samplers: one row each, which config, `--set`, `--help`, the checks and the docs all read.

To add a sampler, write its function in `diffusion.samplers` and add a row of the same name here. Loads no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field


@dataclass(frozen=True)
class Option:
    """A keyword-only argument of a sampler's function, and a setting of `SamplingConfig`."""

    name: str
    type: Any
    """Its type and range, as pydantic checks them."""
    default: Any
    help: str


def one_each(steps: int) -> int:
    """NFE of a sampler that evaluates the denoiser once a step."""
    return steps


def two_each(steps: int) -> int:
    """NFE of a sampler that evaluates the denoiser twice a step, but only once in the last, down to 0."""
    return 2 * steps - 1


def nothing(options: Any) -> None:
    """The check of a sampler whose options all fit together."""


@dataclass(frozen=True)
class SamplerRow:
    """What there is to know about a sampler besides its formula."""

    about: str
    """One line for the docs."""
    options: tuple[Option, ...] = ()
    nfe: Callable[[int], int] = one_each
    """Number of function evaluations for a number of steps."""
    adds_noise: bool = False
    """Whether it takes `noise`, the fresh noise that it adds on the way (perhaps only with some options)."""
    min_steps: int = 1
    """With fewer steps it is not worth using: where only `steps` is given, and fewer, ipndm takes its place."""
    multistep: bool = False
    """Whether it remembers the steps before: it cannot go back and forth between noise levels."""
    takes_prediction: bool = False
    """Whether it takes all that the network predicts, learned variance included, instead of the denoiser."""
    discrete: bool = False
    """Whether it steps along the model's discrete schedule by default, where the model has one."""
    sigmas: str = "karras"
    """The noise levels that it steps along by default otherwise: a row of `diffusion.recipe.SIGMAS`."""
    check: Callable[[Any], None] = nothing
    """Raises ValueError where its options, attributes of the argument, do not fit together."""


VarianceName = Literal["auto", "small", "large", "learned"]

VARIANCE = Option(
    "variance",
    VarianceName,
    "auto",
    "variance of a step: Ho et al.'s beta tilde (small), beta (large), or learned; auto is learned where possible",
)
ETA = Option("eta", Annotated[float, Field(ge=0, le=1)], 0.0, "0 adds no noise, 1 as much as ancestral")
ORDER = Option("order", Annotated[int, Field(ge=1, le=4)], 4, "how many of the last slopes it uses, 1 to 4")
CHURN = (
    Option("s_churn", Annotated[float, Field(ge=0)], 0.0, "S_churn, noise added over all steps; 0 adds none"),
    Option("s_tmin", Annotated[float, Field(ge=0)], 0.05, "S_tmin, lowest sigma at which noise is added"),
    Option("s_tmax", Annotated[float, Field(ge=0)], 50.0, "S_tmax, highest sigma at which noise is added"),
    Option("s_noise", Annotated[float, Field(ge=0)], 1.003, "S_noise, standard deviation of that noise"),
)


def check_churn(options: Any) -> None:
    if options.s_tmax < options.s_tmin:
        raise ValueError(f"s_tmax {options.s_tmax} is below s_tmin {options.s_tmin}: choose s_tmax at least s_tmin.")


SAMPLERS: dict[str, SamplerRow] = {
    "ipndm": SamplerRow(
        "multistep with the weights of evenly spaced steps: the default, good for few steps", (ORDER,), multistep=True
    ),
    "dpmpp_2m": SamplerRow("DPM-Solver++(2M), second-order multistep", multistep=True),
    "heun": SamplerRow(
        "EDM's second-order method; with `s_churn` above 0 its stochastic version",
        CHURN,
        two_each,
        adds_noise=True,
        check=check_churn,
    ),
    "lms": SamplerRow("linear multistep with weights exact for the given sigmas", (ORDER,), multistep=True),
    "euler": SamplerRow("first order, the simplest; on the discrete schedule it is DDIM"),
    "ddim": SamplerRow(
        "DDIM; with `eta=1` it is `ancestral` with the small variance",
        (ETA,),
        adds_noise=True,
        min_steps=100,
        discrete=True,
    ),
    "ancestral": SamplerRow(
        "DDPM's own sampler, with a fixed or learned variance",
        (VARIANCE,),
        adds_noise=True,
        min_steps=100,
        takes_prediction=True,
        discrete=True,
    ),
    "euler_ancestral": SamplerRow("`ddim` with `eta=1`, on Karras et al.'s sigmas by default", adds_noise=True),
    "consistency": SamplerRow(
        "for models that `undiffuse distill` made: each step is a whole image, to which the next adds noise again",
        adds_noise=True,
        sigmas="consistency",
    ),
}
"""In the order of the docs. Each has a function of the same name in `diffusion.samplers`."""

SamplerName = Literal[tuple(SAMPLERS)]  # ty: ignore[invalid-type-form]


def options() -> dict[str, Option]:
    """Every option of every sampler by its name.

    Raises:
        ValueError: two samplers have different options of the same name.
    """
    found: dict[str, Option] = {}
    for sampler, row in SAMPLERS.items():
        for option in row.options:
            if found.setdefault(option.name, option) != option:
                raise ValueError(f"Sampler {sampler}: another sampler has a different option {option.name}: rename it.")
    return found


def users(option: str) -> list[str]:
    """The samplers that have an option."""
    return [name for name, sampler in SAMPLERS.items() if option in [each.name for each in sampler.options]]


def options_help() -> str:
    """One line that lists every option with its samplers, for `--help`."""
    listed = [f"{name} ({', '.join(users(name))}: {option.help})" for name, option in options().items()]
    return f"Options of the sampler as NAME=VALUE: {'; '.join(listed)}."
