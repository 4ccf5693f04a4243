"""Parity with recorded results of the reference implementations: every array of tests/oracles, see its README.

UNDIFFUSE_ORACLES names another folder of the same form.
"""

import json
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from undiffuse.diffusion import likelihood, loss, noise, parametrization, reverse, samplers
from undiffuse.diffusion.denoiser import Denoise, Estimate, Estimator, clipped, denoiser, estimator
from undiffuse.diffusion.samplers import Step
from undiffuse.diffusion.sigma_samplers import LossSecondMomentResampler

FOLDER = Path(os.environ.get("UNDIFFUSE_ORACLES", Path(__file__).parent / "oracles")).absolute()

SCHEDULES = {"linear": noise.linear_betas, "cosine": noise.cosine_betas}
OUTPUTS = {"EPSILON": parametrization.eps, "START_X": parametrization.x0}
VARIANCES = {"FIXED_SMALL": reverse.small, "FIXED_LARGE": reverse.large, "LEARNED_RANGE": reverse.learned}
KNOWN_FILES = (
    r"README\.md|strided_timesteps\.json|openai_unet_\d+\.(npz|safetensors)|"
    r"(schedules|gaussian_diffusion|loops|loss_aware_sampler|sigma_samplers)\.npz"
)
FLOAT32 = (2e-5, 2e-5)
LOOP = (1e-4, 1e-4)
FLOAT64 = (1e-6, 1e-12)
"""Relative and absolute tolerance."""


class Recording:
    """The arrays of a file, each of which must be asked for."""

    def __init__(self, file: str):
        self.arrays = dict(np.load(FOLDER / file))
        self.left = set(self.arrays)

    def __call__(self, name: str) -> Tensor:
        self.left.discard(name)
        return torch.from_numpy(self.arrays[name])

    def matching(self, pattern: str) -> Iterator[re.Match[str]]:
        """The names that match, in the file's order."""
        return filter(None, [re.fullmatch(pattern, name) for name in self.arrays])


@contextmanager
def recording(file: str) -> Generator[Recording]:
    arrays = Recording(file)
    yield arrays
    assert not arrays.left, "the recording holds arrays that this test does not know"


def close(got: Tensor, expected: Tensor, tolerance: tuple[float, float]) -> None:
    torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance[0], atol=tolerance[1])


def chain(schedule: str, num_timesteps: int) -> Tensor:
    return noise.sigmas_of_betas(SCHEDULES[schedule](num_timesteps))


def toy_network(num_timesteps: int, learned: bool) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """The recordings' network, of DDPM's x_t and t."""

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        c = torch.cos(t / num_timesteps * torch.pi / 2).view(-1, 1, 1, 1)
        out = 0.6 * x * (1 - 0.5 * c) + 0.3 * x.roll(1, dims=-1) * c - 0.1
        return torch.cat([out, torch.sin(3 * x)], dim=1) if learned else out

    return network


def toy_estimator(sigmas: Tensor, output: str, learned: bool) -> Estimator:
    coefficients = OUTPUTS[output](parametrization.discrete_index(sigmas))
    return estimator(toy_network(len(sigmas), learned), coefficients, torch.float64)


def test_no_file_is_left_out() -> None:
    assert [file.name for file in FOLDER.iterdir() if not re.fullmatch(KNOWN_FILES, file.name)] == []


def test_schedules() -> None:
    with recording("schedules.npz") as recorded:
        for match in recorded.matching(r"(\w+?)_(\d+)_betas"):
            schedule, num_timesteps = match[1], int(match[2])
            betas, sigma = SCHEDULES[schedule](num_timesteps), chain(schedule, num_timesteps)
            alpha_bar, before = 1 / (1 + sigma**2), torch.cat([sigma.new_zeros(1), sigma[:-1]])
            # In DDPM's own scale, where x is sqrt(1 + sigma^2) times smaller.
            small = reverse.small_variance(sigma, before) / (1 + before**2)
            x, x0 = torch.sqrt(1 + sigma**2), torch.zeros(()).double()
            ours = {
                "betas": betas,
                "alphas_cumprod": alpha_bar,
                "posterior_variance": small,
                "posterior_log_variance_clipped": torch.cat([small[1:2], small[1:]]).log(),
                "posterior_mean_coef1": reverse.posterior_mean(x0, x0 + 1, sigma, before) / torch.sqrt(1 + before**2),
                "posterior_mean_coef2": reverse.posterior_mean(x, x0, sigma, before) / torch.sqrt(1 + before**2),
            }
            for name, values in ours.items():
                close(values, recorded(f"{schedule}_{num_timesteps}_{name}"), FLOAT64)


def test_strides() -> None:
    for name, kept in json.loads((FOLDER / "strided_timesteps.json").read_text()).items():
        num_timesteps, _, stride = name.partition(":")
        assert noise.strided(int(num_timesteps), stride) == kept, name


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_reverse_step_bound_and_losses(schedule: str, output: str, variance: str) -> None:
    recorded = Recording("gaussian_diffusion.npz")
    learned = variance == "LEARNED_RANGE"
    x0, eps, t = recorded("x0").double(), recorded("noise").double(), recorded(f"{schedule}_t")
    sigmas = chain(schedule, int(t.max()) + 1)
    sigma, s = sigmas[t], torch.where(t > 0, sigmas[t - 1], 0.0)
    wide_sigma, wide_s = sigma.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
    x = x0 + wide_sigma * eps
    close(x / torch.sqrt(1 + wide_sigma**2), recorded(f"{schedule}_x_t"), FLOAT32)
    close(likelihood.prior_bits(x0, sigmas[-1]), recorded(f"{schedule}_prior_bits"), FLOAT32)
    last = reverse.last_log_variance(torch.cat([sigmas[:2].flip(0), torch.zeros(1).double()]))
    for clip in (0, 1):
        name = f"{schedule}_{output}_{variance}_clip{clip}"
        estimate = toy_estimator(sigmas, output, learned)
        at = (clipped(estimate) if clip else estimate)(x, sigma, None)
        mean = reverse.posterior_mean(x, at.x0, wide_sigma, wide_s) / torch.sqrt(1 + wide_s**2)
        log_variance = VARIANCES[variance](wide_sigma, wide_s, at.fraction, last) - torch.log1p(wide_s**2)
        # In float32, as recorded: far out the decoder's bins have the mass that its rounding leaves of 1 - 1.
        at32 = Estimate(at.x0.float(), None if at.fraction is None else at.fraction.float())
        bits = likelihood.term_bits(at32, x0.float(), sigma, s, VARIANCES[variance], last, likelihood.approximate)
        close(at.x0, recorded(f"{name}_pred_xstart"), FLOAT32)
        close(mean, recorded(f"{name}_mean"), FLOAT32)
        close(log_variance.expand_as(x0), recorded(f"{name}_log_variance"), FLOAT32)
        close(bits, recorded(f"{name}_vb_bits"), FLOAT32)
    name = f"{schedule}_{output}_{variance}_clip0"
    network, coefficients = toy_network(len(sigmas), learned), OUTPUTS[output](parametrization.discrete_index(sigmas))
    mse = loss.denoising_loss(network, coefficients, x0, eps, sigma)
    close(mse, recorded(f"{name}_train_mse"), FLOAT32)
    if not learned:
        close(mse, recorded(f"{name}_train_loss"), FLOAT32)
        return
    tanh = partial(loss.hybrid_loss, log_mass=likelihood.approximate)
    hybrid = tanh(network, coefficients, sigmas, x0.float(), eps.float(), sigma)
    close(hybrid, recorded(f"{name}_train_loss"), FLOAT32)
    close(hybrid - mse, recorded(f"{name}_train_vb"), FLOAT32)


def test_every_recorded_reverse_step_is_compared() -> None:
    part = r"(linear|cosine)_((EPSILON|START_X)_(FIXED_SMALL|FIXED_LARGE|LEARNED_RANGE)_clip"
    known = rf"x0|noise|(linear|cosine)_(t|x_t|prior_bits)|{part}[01]_(mean|log_variance|pred_xstart|vb_bits))"
    trained = rf"{part}0_train_(loss|mse))|(linear|cosine)_(EPSILON|START_X)_LEARNED_RANGE_clip0_train_vb"
    names = Recording("gaussian_diffusion.npz").arrays
    assert [name for name in names if not re.fullmatch(f"{known}|{trained}", name)] == []


def test_sampling_loops() -> None:
    with recording("loops.npz") as recorded:
        x_T = recorded("x_T").double()
        for match in recorded.matching(r"(\w+)_(FIXED_\w+|LEARNED_RANGE)_(ancestral|ddim_eta([\d.]+))"):
            schedule, variance, loop, eta = match.groups()
            name = f"{schedule}_{variance}_{loop}"
            draws = recorded(f"{name}_noise").double()
            sigmas = chain(schedule, 1000)
            grid = noise.discrete_sigmas(noise.strided(1000, f"ddim{len(draws)}"), sigmas)
            estimate = clipped(toy_estimator(sigmas, "EPSILON", variance == "LEARNED_RANGE"))
            x, drawn = x_T * torch.sqrt(1 + grid[0] ** 2), partial(next, iter(draws))
            if loop == "ancestral":
                walk = samplers.ancestral(estimate, x, grid, noise=drawn, variance=VARIANCES[variance])
            else:
                walk = samplers.ddim(denoiser(estimate), x, grid, noise=drawn, eta=float(eta))
            close(end_of(walk), recorded(name), LOOP)
        for match in recorded.matching(r"(\w+)_(FIXED_\w+|LEARNED_RANGE)_bpd(\d+)_noise"):
            bound_of_loop(recorded, *match.groups())


def bound_of_loop(recorded: Recording, schedule: str, variance: str, stride: str) -> None:
    name = f"{schedule}_{variance}_bpd{stride}"
    sigmas = chain(schedule, 1000)
    grid = noise.discrete_sigmas(noise.strided(1000, stride), sigmas)
    bound = likelihood.bound(
        clipped(toy_estimator(sigmas, "EPSILON", variance == "LEARNED_RANGE")),
        Recording("gaussian_diffusion.npz")("x0")[:2].double(),
        grid,
        noise=partial(next, iter(recorded(f"{name}_noise").double())),
        variance=VARIANCES[variance],
        log_mass=likelihood.approximate,
    )
    close(bound.prior, recorded(f"{name}_prior_bpd"), LOOP)
    close(bound.terms, recorded(f"{name}_vb"), LOOP)
    close(bound.total, recorded(f"{name}_total_bpd"), LOOP)
    close(bound.x0_mse, recorded(f"{name}_xstart_mse"), LOOP)
    close(bound.eps_mse, recorded(f"{name}_mse"), LOOP)


def test_loss_aware_weights() -> None:
    with recording("loss_aware_sampler.npz") as recorded:
        weights = recorded("weights")
        draws = LossSecondMomentResampler(torch.ones(len(weights)).double().cumsum(0), history=4, uniform_share=0.001)
        for timesteps, losses in zip(recorded("timesteps"), recorded("losses"), strict=True):
            draws.update(timesteps, losses)
        # The recording does not sum to 1.
        close(draws.probabilities(), weights / weights.sum(), FLOAT64)


def mixture(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """The exact denoiser of N(+0.6, 0.2^2) and N(-0.6, 0.2^2), alike likely, in every pixel."""
    sigma = sigma.view(-1, 1, 1, 1)
    v = 0.04 + sigma**2
    return (0.04 * x + sigma**2 * 0.6 * (2 * torch.sigmoid(2 * 0.6 * x / v) - 1)) / v


def end_of(steps: Iterator[Step]) -> Tensor:
    return list(steps)[-1].x


SIGMA_SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {
    "euler": samplers.euler,
    "heun": samplers.heun,
    "dpmpp_2m": samplers.dpmpp_2m,
    "lms": samplers.lms,
    "euler_ancestral": partial(samplers.ddim, eta=1.0),
}


def test_samplers_in_sigma() -> None:
    denoise: Denoise = mixture
    with recording("sigma_samplers.npz") as recorded:
        z = recorded("z")
        for match in recorded.matching(r"edm_(heun|churn)_(\d+)"):
            grid = noise.karras_sigmas(int(match[2]), 0.002, 80.0)
            walk = samplers.heun(denoise, z * 80, grid)
            if match[1] == "churn":
                drawn = partial(next, iter(recorded(f"{match[0]}_noise")))
                churned = partial(samplers.churned_heun, churn=10.0, churn_min=0.05, churn_max=50.0, churn_noise=1.003)
                walk = churned(denoise, z * 80, grid, noise=drawn)
            close(end_of(walk), recorded(match[0]), FLOAT64)
        for match in recorded.matching(r"k_(\w+)_(\d+)"):
            grid = recorded(f"karras_sigmas_{match[2]}")
            # It was recorded in float32.
            close(noise.karras_sigmas(int(match[2]), 0.002, 80.0), grid, FLOAT32)
            options = {}
            if match[1] == "euler_ancestral":
                options["noise"] = partial(next, iter(recorded(f"{match[0]}_noise")))
            walk = SIGMA_SAMPLERS[match[1]](denoise, z * grid[0], grid, **options)
            close(end_of(walk), recorded(match[0]), FLOAT64)
        for match in recorded.matching(r"ipndm(\d)_(\d+)"):
            grid = recorded(f"ipndm_sigmas_{match[2]}")
            close(noise.karras_sigmas(int(match[2]), 0.002, 80.0)[:-1], grid, FLOAT64)
            walk = samplers.ipndm(denoise, z * grid[0], grid, order=int(match[1]))
            close(end_of(walk), recorded(match[0]), FLOAT64)
