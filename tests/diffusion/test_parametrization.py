"""Five parametrizations of one denoiser: the target and inputs of each network, and that all sample the same."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.gaussians import noise_source
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, parametrization, samplers
from undiffuse.diffusion.denoiser import Denoise, denoiser, predictor, without_variance
from undiffuse.diffusion.parametrization import Coefficients

SCHEDULE = noise.sigmas_of_betas(noise.linear_betas(1000))
C_NOISE = parametrization.discrete_index(SCHEDULE)


def level_of_index(c_noise: Tensor) -> Tensor:
    return SCHEDULE[c_noise.round().long()]


# Each parametrization, and how its network recovers sigma from c_noise.
FIVE = {
    "eps": (parametrization.eps(C_NOISE), level_of_index),
    "x0": (parametrization.x0(C_NOISE), level_of_index),
    "v": (parametrization.v(C_NOISE), level_of_index),
    "flow": (parametrization.flow, lambda t: t / (1 - t)),
    "edm": (parametrization.edm(0.5), lambda c_noise: torch.exp(4 * c_noise)),
}


def perfect(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """The exact denoiser of pixels that are -1 or 1 with equal chance."""
    return torch.tanh(x / sigma.view(-1, 1, 1, 1) ** 2)


def ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Iterator[samplers.Step]:
    return samplers.ancestral(without_variance(denoise), x, sigmas, noise=noise_source(4, 1, 8, 8))


def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Iterator[samplers.Step]:
    return samplers.ddim(denoise, x, sigmas, noise=noise_source(4, 1, 8, 8), eta=0.7)


@pytest.mark.parametrize(
    "sampler",
    [samplers.euler, samplers.heun, samplers.dpmpp_2m, samplers.lms, samplers.ipndm, ancestral, ddim],
    ids=["euler", "heun", "dpmpp_2m", "lms", "ipndm", "ancestral", "ddim"],
)
@pytest.mark.parametrize(("coefficients", "sigma_of"), FIVE.values(), ids=FIVE)
def test_parametrizations_of_one_denoiser_sample_the_same(
    coefficients: Callable[[Tensor], Coefficients], sigma_of: Callable[[Tensor], Tensor], sampler: Callable
) -> None:
    def network(scaled_x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        sigma = sigma_of(c_noise)
        c_skip, c_out, c_in, _ = (c.view(-1, 1, 1, 1) for c in coefficients(sigma))
        x = scaled_x / c_in
        return (perfect(x, sigma) - c_skip * x) / c_out

    sigmas = noise.discrete_sigmas(noise.strided(1000, "20"), SCHEDULE)
    start = samplers.starting_noise(normal(4, 1, 8, 8), sigmas[0])
    ours = sampler(denoiser(predictor(network, coefficients, torch.float64)), start, sigmas)
    for step, expected in zip(ours, sampler(perfect, start, sigmas), strict=True):
        torch.testing.assert_close(step.x, expected.x, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(step.x0, expected.x0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "target_of"),
    [
        ("eps", lambda x0, eps, sigma: eps),
        ("x0", lambda x0, eps, sigma: x0),
        # sqrt(alpha bar) eps - sqrt(1 - alpha bar) x0 (Salimans & Ho 2022, section 4).
        ("v", lambda x0, eps, sigma: (1 / (1 + sigma**2)).sqrt() * eps - (1 - 1 / (1 + sigma**2)).sqrt() * x0),
        ("flow", lambda x0, eps, sigma: eps - x0),
    ],
)
def test_the_target_is_that_of_the_paper(name: str, target_of: Callable[..., Tensor]) -> None:
    x0, eps = torch.randn(2, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c_skip, c_out, _, _ = FIVE[name][0](SCHEDULE)
    target = (x0 - c_skip * (x0 + SCHEDULE * eps)) / c_out
    torch.testing.assert_close(target, target_of(x0, eps, SCHEDULE), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma_data", [0.5, 0.7])
def test_edm_has_unit_variance_and_least_error_amplification(sigma_data: float) -> None:
    sigma = torch.logspace(-3, 3, 100, dtype=torch.float64)
    c_skip, c_out, c_in, c_noise = parametrization.edm(sigma_data)(sigma)
    one = torch.ones_like(sigma)
    # Variances of c_in x and of (x0 - c_skip x) / c_out for independent x0 and noise (Karras et al. 2022, B.6).
    torch.testing.assert_close(c_in**2 * (sigma_data**2 + sigma**2), one)
    torch.testing.assert_close(((1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * sigma**2) / c_out**2, one)
    torch.testing.assert_close(c_noise, sigma.log() / 4)
    # Among all skips with unit variance out, c_out is the smallest.
    for other in (c_skip + 1e-3, c_skip - 1e-3):
        assert ((1 - other) ** 2 * sigma_data**2 + other**2 * sigma**2 > c_out**2).all()


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_a_discrete_network_gets_ddpms_x_t(name: str) -> None:
    alpha_bar = torch.cumprod(1 - noise.linear_betas(1000), 0)
    torch.testing.assert_close(FIVE[name][0](SCHEDULE).c_in, alpha_bar.sqrt())


def test_a_flow_network_gets_the_straight_path_and_its_time() -> None:
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    x0, eps = torch.randn(2, 99, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = t / (1 - t)
    _, _, c_in, c_noise = parametrization.flow(sigma)
    torch.testing.assert_close(c_in * (x0 + sigma * eps), (1 - t) * x0 + t * eps)
    torch.testing.assert_close(c_noise, t)


@pytest.mark.parametrize("betas", [noise.linear_betas(1000), noise.cosine_betas(4000), noise.cosine_betas(2)])
def test_the_discrete_index_is_exact_at_every_level(betas: Tensor) -> None:
    schedule = noise.sigmas_of_betas(betas)
    index = parametrization.discrete_index(schedule)(schedule)
    assert torch.equal(index, torch.arange(len(schedule), dtype=torch.float64))


def test_the_discrete_index_is_linear_in_ln_sigma_between() -> None:
    dense = torch.linspace(float(SCHEDULE[0].log()), float(SCHEDULE[-1].log()), 100_000, dtype=torch.float64)[
        1:-1
    ].exp()
    assert (C_NOISE(dense).diff() > 0).all()
    for fraction in (0.25, 0.5):
        between = SCHEDULE[:-1] ** (1 - fraction) * SCHEDULE[1:] ** fraction
        torch.testing.assert_close(
            C_NOISE(between), torch.arange(999, dtype=torch.float64) + fraction, rtol=0, atol=1e-8
        )


def test_the_discrete_index_is_clamped_at_both_ends() -> None:
    outside = torch.stack([SCHEDULE[0] / 2, SCHEDULE[-1] * 2])
    assert C_NOISE(outside).tolist() == [0, 999]


def test_the_docs_have_a_row_for_each_parametrization() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "maths.md").read_text(encoding="utf-8")
    section = docs[docs.index("## What the network predicts") : docs.index("## One loss")]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(parametrization.PARAMETRIZATIONS)
