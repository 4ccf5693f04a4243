"""Each row of the table of samplers agrees with its function, and the docs agree with the table."""

import inspect
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.gaussians import gaussian, noise_source
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, reverse, samplers
from undiffuse.diffusion.denoiser import Prediction, without_variance
from undiffuse.diffusion.sampler_table import SAMPLERS, SamplerRow, options, options_help, users

DOCS = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text(encoding="utf-8")
ROWS = [pytest.param(name, sampler, id=name) for name, sampler in SAMPLERS.items()]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_the_options_of_a_row_are_those_of_its_function(name: str, row: SamplerRow) -> None:
    parameters = inspect.signature(getattr(samplers, name)).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert ("noise" in keywords) == row.adds_noise
    keywords.pop("noise", None)
    # The one option that stands for a function: the config has its name.
    if "variance" in keywords:
        assert keywords.pop("variance") is reverse.VARIANCES["small"]
        assert [option.name for option in row.options] == ["variance"]
        return
    assert keywords == {option.name: option.default for option in row.options}


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize(("name", "row"), ROWS)
def test_nfe_counts_the_evaluations(name: str, row: SamplerRow, steps: int) -> None:
    evaluations = []

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        evaluations.append(sigma)
        return gaussian(0.3, 0.5)(x, sigma, label)

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        return Prediction(denoise(x, sigma, label), None)

    given = {"noise": noise_source(2, 1, 4, 4)} if row.adds_noise else {}
    function = getattr(samplers, name)
    taken = predict if row.takes_prediction else denoise
    list(function(taken, 80 * normal(2, 1, 4, 4), noise.karras_sigmas(steps, 0.002, 80), None, **given))
    assert len(evaluations) == row.nfe(steps)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_multistep_sampler_is_one_that_beginning_anew_at_each_step_changes(name: str, row: SamplerRow) -> None:
    """Inpainting does so: it takes one step at a time."""
    sigmas, start = noise.karras_sigmas(6, 0.002, 80), 80 * normal(2, 1, 4, 4)
    denoise = gaussian(0.3, 0.5)
    taken = without_variance(denoise) if row.takes_prediction else denoise

    def end(x: Tensor, *parts: Tensor) -> Tensor:
        given = {"noise": noise_source(2, 1, 4, 4)} if row.adds_noise else {}
        for part in parts:
            *_, step = getattr(samplers, name)(taken, x, part, None, **given)
            x = step.x
        return x

    one_by_one = end(start, *(torch.stack(pair) for pair in pairwise(sigmas)))
    assert torch.allclose(one_by_one, end(start, sigmas), rtol=1e-9) != row.multistep


@pytest.mark.parametrize(
    ("name", "options"), [("ancestral", {}), ("ddim", {"eta": 0.5}), ("euler_ancestral", {}), ("consistency", {})]
)
def test_fresh_noise_is_drawn_for_every_step_but_the_last(name: str, options: dict[str, float]) -> None:
    drawn: list[Tensor] = []

    def fresh() -> Tensor:
        drawn.append(normal(2, 1, 4, 4, seed=len(drawn)))
        return drawn[-1]

    denoise = gaussian(0.3, 0.5)
    taken = without_variance(denoise) if SAMPLERS[name].takes_prediction else denoise
    sigmas = noise.karras_sigmas(6, 0.002, 80)
    list(getattr(samplers, name)(taken, 80 * normal(2, 1, 4, 4), sigmas, None, noise=fresh, **options))
    assert len(drawn) == 5


def test_samplers_that_share_an_option_share_its_default() -> None:
    for name, option in options().items():
        rows = [SAMPLERS[user] for user in users(name)]
        assert all(option in row.options for row in rows)


def test_options_help_names_every_option_and_its_samplers() -> None:
    for name, option in options().items():
        assert f"{name} ({', '.join(users(name))}: {option.help})" in options_help()


def test_the_table_does_not_load_torch() -> None:
    code = "import sys, undiffuse.diffusion.sampler_table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def row_of_docs(name: str, row: SamplerRow) -> str:
    given = ", ".join(f"`{option.name}={option.default}`" for option in row.options)
    nfe = "N" if row.nfe(10) == 10 else "2N - 1"
    switches = f"{row.min_steps} steps" if row.min_steps > 1 else ""
    always = inspect.signature(getattr(samplers, name)).parameters.get("noise")
    required = always is not None and always.default is inspect.Parameter.empty
    fresh = "no" if always is None else "yes" if required else "with some options"
    cells = (f"`{name}`", row.about, nfe, given, switches, fresh)
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def test_the_docs_have_the_table() -> None:
    table = re.findall(r"^\| `\w+`.*$", DOCS, flags=re.MULTILINE)
    expected = [row_of_docs(name, row) for name, row in SAMPLERS.items()]
    expected += [f"| `{name}` | {option.help} |" for name, option in options().items()]
    assert table == expected


def test_samplers_are_over_any_denoiser() -> None:
    # As in a notebook: samplers.heun(model.denoise, x, sigmas).
    sigmas = noise.karras_sigmas(9, 0.002, 80)
    for name in ("euler", "heun", "dpmpp_2m", "lms", "ipndm", "ddim"):
        *_, end = getattr(samplers, name)(gaussian(0.3, 0.5), 80 * normal(2, 1, 4, 4), sigmas)
        assert torch.isfinite(end.x).all()
