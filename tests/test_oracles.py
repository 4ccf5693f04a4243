"""Parity with recorded results of the reference implementations: every array of tests/oracles, see its README.

UNDIFFUSE_ORACLES names another folder of the same form.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from helpers import float32
from helpers.float32 import ReverseStep
from helpers.recordings import FOLDER, Recording, close, equal, recording
from torch import Tensor

from undiffuse.diffusion import likelihood, loss, noise, parametrization, reverse, samplers
from undiffuse.diffusion.denoiser import Denoise, Predict, Prediction, clipped, denoiser, predictor
from undiffuse.diffusion.samplers import Step
from undiffuse.diffusion.sigma_samplers import LossSecondMomentResampler

SCHEDULES = {"linear": noise.linear_betas, "cosine": noise.cosine_betas}
PARAMETRIZATIONS = {"EPSILON": parametrization.eps, "START_X": parametrization.x0}
VARIANCES = {"FIXED_SMALL": reverse.small, "FIXED_LARGE": reverse.large, "LEARNED_RANGE": reverse.learned}
KNOWN_FILES = (
    r"README\.md|strided_timesteps\.json|openai_unet_\d+\.(npz|safetensors)|"
    r"(schedules|gaussian_diffusion|loops|loss_aware_sampler|sigma_samplers)\.npz"
)


def schedule_of(name: str, num_timesteps: int) -> Tensor:
    return noise.sigmas_of_betas(SCHEDULES[name](num_timesteps))


def toy_network(num_timesteps: int, learned: bool) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """The network of the recordings, a function of DDPM's x_t and t."""

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        c = torch.cos(t / num_timesteps * torch.pi / 2).view(-1, 1, 1, 1)
        out = 0.6 * x * (1 - 0.5 * c) + 0.3 * x.roll(1, dims=-1) * c - 0.1
        return torch.cat([out, torch.sin(3 * x)], dim=1) if learned else out

    return network


class Model:
    """The toy network with a schedule of T timesteps, an output and a variance."""

    def __init__(self, schedule: str, num_timesteps: int, output: str, variance: str):
        self.sigmas, self.output = schedule_of(schedule, num_timesteps), output
        self.variance, self.is_learned = VARIANCES[variance], variance == "LEARNED_RANGE"
        self.coefficients = PARAMETRIZATIONS[output](parametrization.discrete_index(self.sigmas))
        self.network = toy_network(num_timesteps, self.is_learned)
        self.predict: Predict = predictor(self.network, self.coefficients, torch.float64)

    def step(
        self, x0: Tensor, eps: Tensor, sigma: Tensor, s: Tensor, last: float, clip: bool
    ) -> tuple[Prediction, ReverseStep]:
        """What it predicts at sigma, and the step from there to s with the errors that float32 may leave."""
        wide_sigma, wide_s = sigma.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
        x = x0 + wide_sigma * eps
        at = (clipped(self.predict) if clip else self.predict)(x, sigma, None)
        c_in, c_noise = self.coefficients(sigma)[2:]
        output = toy_network(len(self.sigmas), False)(x * c_in.view(-1, 1, 1, 1), c_noise, None)
        log_variances = [
            variance(wide_sigma, wide_s, at.variance_fraction, last) - torch.log1p(wide_s**2)
            for variance in (self.variance, reverse.small, reverse.large)
        ]
        return at, ReverseStep(
            x0,
            eps,
            wide_sigma,
            wide_s,
            output,
            self.output == "EPSILON",
            at.x0,
            *(v.expand_as(x0) for v in log_variances),
        )


def test_no_file_is_left_out() -> None:
    assert [file.name for file in FOLDER.iterdir() if not re.fullmatch(KNOWN_FILES, file.name)] == []


def test_schedules() -> None:
    with recording("schedules.npz") as recorded:
        for match in recorded.matching(r"(\w+?)_(\d+)_betas"):
            schedule, num_timesteps = match[1], int(match[2])
            betas, sigma = SCHEDULES[schedule](num_timesteps), schedule_of(schedule, num_timesteps)
            alpha_bar, before = 1 / (1 + sigma**2), torch.cat([sigma.new_zeros(1), sigma[:-1]])
            # On DDPM's own scale, where x is sqrt(1 + sigma^2) times smaller.
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
                equal(values, recorded(f"{schedule}_{num_timesteps}_{name}"))


def test_strides() -> None:
    for name, kept in json.loads((FOLDER / "strided_timesteps.json").read_text()).items():
        num_timesteps, _, stride = name.partition(":")
        assert noise.strided(int(num_timesteps), stride) == kept, name


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("output", PARAMETRIZATIONS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_reverse_step_vlb_and_losses(schedule: str, output: str, variance: str) -> None:
    recorded = Recording("gaussian_diffusion.npz")
    x0, eps, t = recorded("x0").double(), recorded("noise").double(), recorded(f"{schedule}_t")
    model = Model(schedule, int(t.max()) + 1, output, variance)
    sigmas = model.sigmas
    sigma, s = sigmas[t], torch.where(t > 0, sigmas[t - 1], 0.0)
    last = reverse.last_log_variance(torch.cat([sigmas[:2].flip(0), torch.zeros(1).double()]))
    close(likelihood.prior_bits(x0, sigmas[-1]), recorded(f"{schedule}_prior_bits"), float32.of_prior(x0, sigmas[-1]))
    for clip in (0, 1):
        name = f"{schedule}_{output}_{variance}_clip{clip}"
        at, step = model.step(x0, eps, sigma, s, last, clip == 1)
        wide_s, x = step.s, x0 + step.sigma * eps
        close(x / torch.sqrt(1 + step.sigma**2), recorded(f"{schedule}_x_t"), float32.rounding(x0, eps))
        mean = reverse.posterior_mean(x, at.x0, step.sigma, wide_s) / torch.sqrt(1 + wide_s**2)
        bits = likelihood.term_bits(at, x0, sigma, s, model.variance, last, likelihood.approximate)
        close(at.x0, recorded(f"{name}_pred_xstart"), step.of_x0())
        close(mean, recorded(f"{name}_mean"), step.of_mean())
        close(step.log_variance, recorded(f"{name}_log_variance"), step.of_log_variance())
        close(bits, recorded(f"{name}_vb_bits"), step.of_bits())
    at, step = model.step(x0, eps, sigma, s, last, clip=False)
    name = f"{schedule}_{output}_{variance}_clip0"
    target = eps if output == "EPSILON" else x0
    of_mse = float32.of_mse(target - step.output, step.of_output())
    mse = loss.denoising_loss(model.network, model.coefficients, x0, eps, sigma)
    close(mse, recorded(f"{name}_train_mse"), of_mse)
    if not model.is_learned:
        close(mse, recorded(f"{name}_train_loss"), of_mse)
        return
    arguments = model.network, model.coefficients, sigmas, x0, eps, sigma
    hybrid = loss.hybrid_loss(*arguments, log_mass=likelihood.approximate)
    of_vb = len(sigmas) / 1000 * step.of_bits()
    close(hybrid, recorded(f"{name}_train_loss"), of_mse + of_vb)
    close(hybrid - mse, recorded(f"{name}_train_vb"), of_vb)


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
            model, noises = Model(schedule, 1000, "EPSILON", variance), recorded(f"{name}_noise").double()
            sigmas = noise.discrete_sigmas(noise.strided(1000, f"ddim{len(noises)}"), model.sigmas)

            def end(predict: Predict, model=model, noises=noises, sigmas=sigmas, loop=loop, eta=eta) -> Tensor:
                x, take = x_T * torch.sqrt(1 + sigmas[0] ** 2), partial(next, iter(noises))
                if loop == "ancestral":
                    return end_of(samplers.ancestral(clipped(predict), x, sigmas, noise=take, variance=model.variance))
                return end_of(samplers.ddim(denoiser(clipped(predict)), x, sigmas, noise=take, eta=float(eta)))

            close(end(model.predict), recorded(name), loop_error(end, model, len(noises)))
        for match in recorded.matching(r"(\w+)_(FIXED_\w+|LEARNED_RANGE)_bpd([\d,]+)_noise"):
            compare_vlb(recorded, *match.groups())


def loop_error(end: Callable[[Predict], Tensor], model: Model, steps: int) -> float:
    """Twice the farthest that the end of a loop moves if each predicted x0 is off by what float32 may leave.

    The roundings of the state itself, of order 1, add to it at each step.
    """
    moved = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)

        def rounded(x: Tensor, sigma: Tensor, label: Tensor | None, generator=generator) -> Prediction:
            at = model.predict(x, sigma, label)
            error = float32.rounding(x, x - at.x0)  # sqrt(1 + sigma^2) x_t and sigma eps.
            sign = torch.randint(2, x.shape, generator=generator) * 2 - 1
            return at._replace(x0=at.x0 + sign * error)

        moved.append(float((end(rounded) - end(model.predict)).abs().max()))
    return 2 * max(moved) + steps * float32.EPS


def compare_vlb(recorded: Recording, schedule: str, variance: str, stride: str) -> None:
    name = f"{schedule}_{variance}_bpd{stride}"
    model, noises = Model(schedule, 1000, "EPSILON", variance), recorded(f"{name}_noise").double()
    sigmas = noise.discrete_sigmas(noise.strided(1000, stride), model.sigmas)
    x0 = Recording("gaussian_diffusion.npz")("x0")[:2].double()
    vlb = likelihood.vlb(
        clipped(model.predict),
        x0,
        sigmas,
        noise=partial(next, iter(noises)),
        variance=model.variance,
        log_mass=likelihood.approximate,
    )
    of_bits, of_x0_mse, of_eps_mse = [], [], []
    for eps, sigma, s in zip(noises, sigmas[:-1], sigmas[1:], strict=True):
        last = reverse.last_log_variance(sigmas)
        at, step = model.step(x0, eps, sigma.expand(2), s.expand(2), last, clip=True)
        of_bits.append(step.of_bits())
        of_x0_mse.append(float32.of_mse(at.x0 - x0, step.of_x0()))
        of_eps_mse.append(float32.of_mse((at.x0 - x0) / sigma, step.of_eps()))
    of_prior, of_terms = float32.of_prior(x0, sigmas[0]), torch.stack(of_bits, dim=1)
    close(vlb.prior, recorded(f"{name}_prior_bpd"), of_prior)
    close(vlb.terms, recorded(f"{name}_vb"), of_terms)
    of_sum = float32.EPS * len(noises) / 2 * vlb.total
    close(vlb.total, recorded(f"{name}_total_bpd"), of_prior + of_terms.sum(dim=1) + of_sum)
    close(vlb.x0_mse, recorded(f"{name}_xstart_mse"), torch.stack(of_x0_mse, dim=1))
    close(vlb.eps_mse, recorded(f"{name}_mse"), torch.stack(of_eps_mse, dim=1))


def test_loss_second_moment_resampler() -> None:
    with recording("loss_aware_sampler.npz") as recorded:
        weights = recorded("weights")
        levels = torch.ones(len(weights)).double().cumsum(0)
        resampler = LossSecondMomentResampler(levels, history=4, uniform_prob=0.001)
        for timesteps, losses in zip(recorded("timesteps"), recorded("losses"), strict=True):
            resampler.update(timesteps, losses)
        # The recorded weights do not sum to 1.
        equal(resampler.probabilities(), weights / weights.sum())


def mixture(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """The exact denoiser of N(+0.6, 0.2^2) and N(-0.6, 0.2^2) in equal parts, in every pixel."""
    sigma = sigma.view(-1, 1, 1, 1)
    v = 0.04 + sigma**2
    return (0.04 * x + sigma**2 * 0.6 * (2 * torch.sigmoid(2 * 0.6 * x / v) - 1)) / v


def end_of(steps: Iterator[Step]) -> Tensor:
    return list(steps)[-1].x


def test_samplers_in_sigma() -> None:
    denoise: Denoise = mixture
    with recording("sigma_samplers.npz") as recorded:
        z = recorded("z")
        for match in recorded.matching(r"edm_(heun|churn)_(\d+)"):
            sigmas = noise.karras_sigmas(int(match[2]), 0.002, 80.0)
            options: dict[str, Any] = {}
            if match[1] == "churn":
                options = {"s_churn": 10.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}
                options["noise"] = partial(next, iter(recorded(f"{match[0]}_noise")))
            equal(end_of(samplers.heun(denoise, z * 80, sigmas, **options)), recorded(match[0]), scale=80)
        for match in recorded.matching(r"k_(\w+)_(\d+)"):
            sigmas = recorded(f"karras_sigmas_{match[2]}")
            # It was recorded in float32; rho = 7 multiplies the relative error of the root.
            bound = 7 * float32.FACTOR * float32.EPS * sigmas
            close(noise.karras_sigmas(int(match[2]), 0.002, 80.0), sigmas, bound)
            options = {}
            if match[1] == "euler_ancestral":
                options["noise"] = partial(next, iter(recorded(f"{match[0]}_noise")))
            sampler = getattr(samplers, match[1])
            equal(end_of(sampler(denoise, z * sigmas[0], sigmas, **options)), recorded(match[0]), scale=80)
        for match in recorded.matching(r"ipndm(\d)_(\d+)"):
            sigmas = recorded(f"ipndm_sigmas_{match[2]}")
            equal(noise.karras_sigmas(int(match[2]), 0.002, 80.0)[:-1], sigmas)
            steps = samplers.ipndm(denoise, z * sigmas[0], sigmas, order=int(match[1]))
            equal(end_of(steps), recorded(match[0]), scale=80)


# The bounds themselves: tight enough to catch what is wrong.


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ten_times_the_bound_is_refused(schedule: str) -> None:
    recorded = Recording("gaussian_diffusion.npz")
    x0, eps, t = recorded("x0").double(), recorded("noise").double(), recorded(f"{schedule}_t")
    model = Model(schedule, int(t.max()) + 1, "EPSILON", "FIXED_SMALL")
    sigma, s = model.sigmas[t], torch.where(t > 0, model.sigmas[t - 1], 0.0)
    at, step = model.step(x0, eps, sigma, s, -10.0, clip=False)
    pred_xstart = recorded(f"{schedule}_EPSILON_FIXED_SMALL_clip0_pred_xstart")
    for sign in (-1, 1):
        with pytest.raises(AssertionError, match="more than float32 leaves"):
            close(at.x0 + sign * 10 * step.of_x0(), pred_xstart, step.of_x0())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_wrong_formulas_are_refused(schedule: str) -> None:
    recorded = Recording("gaussian_diffusion.npz")
    x0, eps, t = recorded("x0").double(), recorded("noise").double(), recorded(f"{schedule}_t")
    model = Model(schedule, int(t.max()) + 1, "EPSILON", "FIXED_SMALL")
    sigma, s = model.sigmas[t], torch.where(t > 0, model.sigmas[t - 1], 0.0)
    at, step = model.step(x0, eps, sigma, s, -10.0, clip=False)
    name = f"{schedule}_EPSILON_FIXED_SMALL_clip0"
    x = x0 + step.sigma * eps
    wrong = {
        "pred_xstart": (x - step.sigma / torch.sqrt(1 + step.sigma**2) * step.output, step.of_x0()),
        "mean": (at.x0 + step.s / step.sigma * (x - at.x0), step.of_mean()),
        "log_variance": (step.large, step.of_log_variance()),
    }
    for quantity, (value, bound) in wrong.items():
        expected = recorded(f"{name}_{quantity}")
        with pytest.raises(AssertionError, match="more than float32 leaves"):
            close(value, expected, bound)
