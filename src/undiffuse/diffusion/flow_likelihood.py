"""The likelihood of the probability flow, the ODE that `euler` and `heun` follow (Song et al. 2021b, 4.3, D.2).

With tau = ln sigma the flow is dx/dtau = x - D(x; sigma), and along it d ln p(x)/dtau = -div(x - D). Followed from an
image at sigma_min up to sigma_max, where p is known, it gives the density at the image.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from undiffuse.diffusion.denoiser import Denoise
from undiffuse.diffusion.likelihood import HALF_BIN
from undiffuse.utils.conditions import Condition

Derivative = Callable[[float, Tensor], Tensor]
Solver = Callable[[Derivative, Tensor, float, float], Tensor]
"""(derivative, y at `start`, start, end) -> y at `end`."""


@dataclass(frozen=True)
class RK45:
    """Dormand and Prince's method of order 5(4), with steps that meet `tolerance`, relative and absolute."""

    tolerance: float = 1e-5

    def __call__(self, derivative: Derivative, y: Tensor, start: float, end: float) -> Tensor:
        def flat(t: float, values: np.ndarray) -> np.ndarray:
            at = torch.from_numpy(values).to(y).view_as(y)
            return derivative(t, at).cpu().double().flatten().numpy()

        values = y.cpu().double().flatten().numpy()
        solution = solve_ivp(flat, (start, end), values, method="RK45", rtol=self.tolerance, atol=self.tolerance)
        if not solution.success:
            raise ArithmeticError(f"The probability flow could not be followed: {solution.message}")
        return torch.from_numpy(solution.y[:, -1].copy()).to(y).view_as(y)


@dataclass(frozen=True)
class RK4:
    """The classical Runge-Kutta method of order 4, in equal steps of ln sigma, NFE 4 per step."""

    steps: int

    def __call__(self, derivative: Derivative, y: Tensor, start: float, end: float) -> Tensor:
        h = (end - start) / self.steps
        for i in range(self.steps):
            t = start + i * h
            k1 = derivative(t, y)
            k2 = derivative(t + h / 2, y + h / 2 * k1)
            k3 = derivative(t + h / 2, y + h / 2 * k2)
            k4 = derivative(t + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y


@dataclass(frozen=True)
class FlowProtocol:
    """How the value was computed, apart from what the caller added: clipping or guidance."""

    solver: str
    nfe: int
    """Number of function evaluations, each with its derivative."""
    sigma_min: float
    sigma_max: float
    batch: int
    """Images that were solved together: the adaptive solver controls their joint error."""
    divergence: str = "Hutchinson's estimator, one probe per image"
    dequantization: str = "uniform over each pixel's bin"


@dataclass(frozen=True)
class FlowLikelihood:
    """-log2 p(x0) in bits/dim for each image, and how it was computed."""

    bits: Float[Tensor, " b"]
    protocol: FlowProtocol

    def summary(self) -> dict[str, Any]:
        """The mean over the images in bits/dim, and the protocol, as JSON has them."""
        error = (self.bits.std() / math.sqrt(len(self.bits))).item() if len(self.bits) > 1 else None
        return {
            "bits_per_dim": self.bits.mean().item(),
            "standard_error": error,
            "images": len(self.bits),
            "protocol": asdict(self.protocol),
        }


def dequantized(x0: Float[Tensor, "b c h w"], uniform: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Uniform dequantization: pixels in [-1, 1] moved in their bins by `uniform` in [0, 1) (Theis et al. 2016, 3.1)."""
    return x0 + (2 * uniform.to(x0) - 1) * HALF_BIN


def log_density(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigma_min: float,
    sigma_max: float,
    label: Condition = None,
    *,
    probe: Float[Tensor, "b c h w"],
    solve: Solver,
) -> Float[Tensor, " b"]:
    """ln p(x) of the model's density at sigma_min, in nats.

    `probe` is the random vector of Hutchinson's estimator: independent entries of mean 0 and variance 1.
    """
    dimensions = x[0].numel()

    def derivative(tau: float, y: Tensor) -> Tensor:
        sigma = x.new_full((len(x),), math.exp(tau))
        at = y[:, :-1].reshape(x.shape).detach().requires_grad_()
        with torch.enable_grad():
            velocity = at - denoise(at, sigma, label)
            (pulled_back,) = torch.autograd.grad((velocity * probe).sum(), at)
        divergence = (pulled_back * probe).sum(dim=(1, 2, 3))
        return torch.cat([velocity.detach().flatten(1), divergence[:, None]], dim=1)

    start = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], dim=1)
    end = solve(derivative, start, math.log(sigma_min), math.log(sigma_max))
    variance = 1 + sigma_max**2  # What sampling starts from: see samplers.starting_noise.
    square = end[:, :-1].square().sum(dim=1)
    log_prior = -square / (2 * variance) - dimensions / 2 * math.log(2 * math.pi * variance)
    return log_prior + end[:, -1]


def flow_likelihood(
    denoise: Denoise,
    x0: Float[Tensor, "b c h w"],
    sigma_min: float,
    sigma_max: float,
    label: Condition = None,
    *,
    uniform: Float[Tensor, "b c h w"],
    probe: Float[Tensor, "b c h w"],
    solve: Solver,
    watch: Callable[[float], object] = lambda fraction: None,
) -> FlowLikelihood:
    """Bits/dim of pixels x0 in [-1, 1], dequantized by `uniform`; an upper bound by Jensen's inequality.

    At each function evaluation, `watch` gets the fraction of the way from ln sigma_min to ln sigma_max that is done.
    """
    nfe = 0
    low, high = math.log(sigma_min), math.log(sigma_max)

    def counted(x: Tensor, sigma: Tensor, label: Condition) -> Tensor:
        nonlocal nfe
        nfe += 1
        watch((float(sigma[0].log()) - low) / (high - low))
        return denoise(x, sigma, label)

    x = dequantized(x0, uniform)
    nats = log_density(counted, x, sigma_min, sigma_max, label, probe=probe.to(x), solve=solve)
    # A bin's mass is its density times its width in every dimension.
    bits = -nats / (math.log(2) * x0[0].numel()) - math.log2(2 * HALF_BIN)
    return FlowLikelihood(bits, FlowProtocol(str(solve), nfe, sigma_min, sigma_max, len(x0)))
