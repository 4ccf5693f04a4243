"""The one loss is that of five papers, its weights are the published ones, and two losses learn the variance."""

from collections.abc import Callable

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import likelihood, noise, parametrization, reverse
from undiffuse.diffusion.denoiser import denoiser, predictor
from undiffuse.diffusion.loss import (
    VLB_WEIGHT,
    Weight,
    denoising_loss,
    edm_weight,
    hybrid_loss,
    min_snr,
    vlb_loss,
)
from undiffuse.diffusion.parametrization import Parametrization

ALPHA_BAR = torch.cumprod(1 - noise.linear_betas(1000), 0)
SCHEDULE = noise.sigmas_of_betas(noise.linear_betas(1000))
C_NOISE = parametrization.discrete_index(SCHEDULE)
SIGMA_DATA = 0.6


def spread(per_image: Tensor) -> Tensor:
    return per_image.view(-1, 1, 1, 1)


def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """Some function of all its arguments."""
    shift = 0.0 if label is None else 0.1 * spread(label).to(x)
    return torch.tanh(0.8 * x) * torch.cos(spread(c_noise) / 300) + 0.3 * x.roll(1, dims=-1) + shift


# The losses as their papers write them, on the image `x0`, the noise `e` and DDPM's index or flow's time `t`.


def mean(square: Tensor) -> Tensor:
    return square.mean(dim=(1, 2, 3))


def x_t(x0: Tensor, e: Tensor, t: Tensor) -> Tensor:
    """Ho et al. 2020, Eq. 4."""
    return spread(ALPHA_BAR[t].sqrt()) * x0 + spread((1 - ALPHA_BAR[t]).sqrt()) * e


def eps_loss(x0: Tensor, e: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """L_simple: Ho et al. 2020, Eq. 14."""
    return mean((e - network(x_t(x0, e, t), t.double(), label)) ** 2)


def x0_loss(x0: Tensor, e: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    return mean((x0 - network(x_t(x0, e, t), t.double(), label)) ** 2)


def v_loss(x0: Tensor, e: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """Salimans & Ho 2022, section 4."""
    v = spread(ALPHA_BAR[t].sqrt()) * e - spread((1 - ALPHA_BAR[t]).sqrt()) * x0
    return mean((v - network(x_t(x0, e, t), t.double(), label)) ** 2)


def flow_loss(x0: Tensor, e: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """Lipman et al. 2023, Eq. 23 without sigma_min, time running from the image to the noise."""
    path = (1 - spread(t)) * x0 + spread(t) * e
    return mean((network(path, t, label) - (e - x0)) ** 2)


def edm_loss(x0: Tensor, e: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """Karras et al. 2022, Eq. 2 and 7 with Table 1, sigma at the index t."""
    sigma, data = spread(SCHEDULE[t]), SIGMA_DATA
    weight = (sigma**2 + data**2) / (sigma * data) ** 2
    y = x0 + sigma * e
    F = network(y / (sigma**2 + data**2).sqrt(), SCHEDULE[t].log() / 4, label)
    D = data**2 / (sigma**2 + data**2) * y + sigma * data / (data**2 + sigma**2).sqrt() * F
    return mean(weight * (D - x0) ** 2)


INDEX = torch.tensor([0, 1, 10, 250, 500, 750, 998, 999])
TIME = torch.tensor([0.001, 0.01, 0.1, 0.4, 0.5, 0.8, 0.99, 0.999], dtype=torch.float64)
FIVE = [
    pytest.param(parametrization.eps(C_NOISE), eps_loss, INDEX, SCHEDULE[INDEX], id="eps"),
    pytest.param(parametrization.x0(C_NOISE), x0_loss, INDEX, SCHEDULE[INDEX], id="x0"),
    pytest.param(parametrization.v(C_NOISE), v_loss, INDEX, SCHEDULE[INDEX], id="v"),
    pytest.param(parametrization.flow, flow_loss, TIME, TIME / (1 - TIME), id="flow"),
    pytest.param(parametrization.edm(SIGMA_DATA), edm_loss, INDEX, SCHEDULE[INDEX], id="edm"),
]


@pytest.mark.parametrize("label", [None, torch.arange(8)], ids=["no label", "labels"])
@pytest.mark.parametrize(("coefficients", "published_loss", "t", "sigma"), FIVE)
def test_the_one_loss_is_the_published_loss(
    coefficients: Parametrization, published_loss: Callable[..., Tensor], t: Tensor, sigma: Tensor, label: Tensor | None
) -> None:
    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    ours = denoising_loss(network, coefficients, x0, e, sigma, label)
    torch.testing.assert_close(ours, published_loss(x0, e, t, label), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("coefficients", "published_loss", "t", "sigma"), FIVE)
def test_float32_images_lose_no_digits_of_the_loss(
    coefficients: Parametrization, published_loss: Callable[..., Tensor], t: Tensor, sigma: Tensor
) -> None:
    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    ours = denoising_loss(network, coefficients, x0.float(), e.float(), sigma)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), published_loss(x0, e, t, None), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.003, 2e4])
@pytest.mark.parametrize("coefficients", [p.values[0] for p in FIVE], ids=[str(p.id) for p in FIVE])
def test_the_loss_is_accurate_at_extreme_sigmas_in_float32(coefficients: Parametrization, sigma: float) -> None:
    x0, e, level = normal(4, 1, 8, 8), normal(4, 1, 8, 8, seed=1), torch.full((4,), sigma, dtype=torch.float64)
    in_float32 = denoising_loss(network, coefficients, x0.float(), e.float(), level).double()
    torch.testing.assert_close(in_float32, denoising_loss(network, coefficients, x0, e, level), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("coefficients", "published_loss", "t", "sigma"), FIVE)
def test_the_loss_is_the_squared_error_over_c_out_squared(
    coefficients: Parametrization, published_loss: Callable[..., Tensor], t: Tensor, sigma: Tensor
) -> None:
    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    D = denoiser(predictor(network, coefficients, torch.float64))(x0 + spread(sigma) * e, sigma, None)
    expected = mean((D - x0) ** 2) / coefficients(sigma).c_out ** 2
    torch.testing.assert_close(denoising_loss(network, coefficients, x0, e, sigma), expected, rtol=1e-6, atol=1e-6)


# Weights: c(SNR) is the factor of the published loss in the papers.


def weighted(coefficients: Parametrization, weight: Weight) -> Tensor:
    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    return denoising_loss(network, coefficients, x0, e, SCHEDULE[INDEX], weight=weight)


@pytest.mark.parametrize(
    ("coefficients", "published_loss", "c"),
    [
        (parametrization.eps(C_NOISE), eps_loss, lambda snr, gamma: snr.clamp(max=gamma) / snr),
        (parametrization.x0(C_NOISE), x0_loss, lambda snr, gamma: snr.clamp(max=gamma)),
        (parametrization.v(C_NOISE), v_loss, lambda snr, gamma: snr.clamp(max=gamma) / (snr + 1)),
    ],
    ids=["eps", "x0", "v"],
)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_has_the_published_weight(
    coefficients: Parametrization, published_loss: Callable[..., Tensor], c: Callable[..., Tensor], gamma: float
) -> None:
    # Hang et al. 2023, section 3.4.
    snr = ALPHA_BAR[INDEX] / (1 - ALPHA_BAR[INDEX])
    assert snr.min() < gamma < snr.max()
    published = published_loss(normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1), INDEX, None)
    ours = weighted(coefficients, min_snr(gamma))
    torch.testing.assert_close(ours, c(snr, gamma) * published, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("coefficients", [p.values[0] for p in FIVE[:3]], ids=["eps", "x0", "v"])
def test_edm_weight_makes_any_loss_that_of_edm(
    coefficients: Parametrization,
) -> None:
    sigma, edm = SCHEDULE[INDEX], parametrization.edm(SIGMA_DATA)
    denoise = denoiser(predictor(network, coefficients, torch.float64))

    def edm_network(scaled_x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        c_skip, c_out, c_in, _ = (spread(c) for c in edm(sigma))
        x = scaled_x / c_in
        return (denoise(x, sigma, label) - c_skip * x) / c_out

    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    as_edm = denoising_loss(edm_network, edm, x0, e, sigma)
    torch.testing.assert_close(weighted(coefficients, edm_weight(SIGMA_DATA)), as_edm, rtol=1e-6, atol=1e-9)


def test_the_edm_parametrization_has_edms_weight_already() -> None:
    edm = parametrization.edm(SIGMA_DATA)
    plain = denoising_loss(network, edm, normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1), SCHEDULE[INDEX])
    torch.testing.assert_close(weighted(edm, edm_weight(SIGMA_DATA)), plain)


# Learned variances: networks with twice the channels.


def answering(F: Tensor, v: Tensor) -> Callable[..., Tensor]:
    """A network with constant outputs: gradients with respect to them are those of the loss in each output."""
    return lambda x, c_noise, label: torch.cat([F, v], dim=1)


def gradients(loss_of: Callable[[Callable[..., Tensor]], Tensor]) -> tuple[Tensor, Tensor]:
    """Of the sum of the losses, with respect to F and v."""
    F, v = normal(8, 3, 4, 4, seed=2).requires_grad_(), (0.5 * normal(8, 3, 4, 4, seed=3)).requires_grad_()
    of_F, of_v = torch.autograd.grad(loss_of(answering(F, v)).sum(), (F, v), materialize_grads=True)
    return of_F, of_v


@pytest.mark.parametrize("coefficients", [p.values[0] for p in FIVE[:3]], ids=["eps", "x0", "v"])
def test_hybrid_gradients_are_those_of_l_simple_and_l_vlb(
    coefficients: Parametrization,
) -> None:
    batch = normal(8, 3, 4, 4).clamp(-1, 1), normal(8, 3, 4, 4, seed=1), SCHEDULE[INDEX]
    of_simple, none = gradients(lambda network: denoising_loss(network, coefficients, *batch))
    of_vlb, of_variance = gradients(lambda network: vlb_loss(network, coefficients, SCHEDULE, *batch))
    of_hybrid = gradients(lambda network: hybrid_loss(network, coefficients, SCHEDULE, *batch))
    torch.testing.assert_close(of_hybrid[0], of_simple, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_hybrid[1], 0.001 * of_variance, rtol=1e-6, atol=0)
    # And they are not equal because they are all zero.
    assert not none.any()
    assert (of_vlb != 0).any(dim=(1, 2, 3)).all()
    assert (of_variance != 0).any(dim=(1, 2, 3)).all()


def learning_network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    return torch.cat([network(x, c_noise, label), torch.sin(3 * x)], dim=1)


@pytest.mark.parametrize("coefficients", [p.values[0] for p in FIVE[:3]], ids=["eps", "x0", "v"])
def test_the_hybrid_loss_is_l_simple_plus_0_001_l_vlb(coefficients: Parametrization) -> None:
    batch = normal(8, 3, 4, 4).clamp(-1, 1), normal(8, 3, 4, 4, seed=1), SCHEDULE[INDEX]
    simple = denoising_loss(learning_network, coefficients, *batch)
    vlb = vlb_loss(learning_network, coefficients, SCHEDULE, *batch)
    hybrid = hybrid_loss(learning_network, coefficients, SCHEDULE, *batch)
    torch.testing.assert_close(hybrid, simple + VLB_WEIGHT * vlb)
    torch.testing.assert_close(simple, denoising_loss(network, coefficients, *batch))


@pytest.mark.parametrize("betas", [noise.linear_betas(25), noise.cosine_betas(8)], ids=["linear", "cosine"])
@pytest.mark.parametrize("make", [parametrization.eps, parametrization.x0, parametrization.v])
def test_l_vlb_averages_to_the_sum_of_the_terms(make: Callable[..., Parametrization], betas: Tensor) -> None:
    sigmas = noise.sigmas_of_betas(betas)
    T, coefficients = len(sigmas), make(parametrization.discrete_index(sigmas))
    x0, e = normal(1, 3, 4, 4).clamp(-1, 1), normal(T, 3, 4, 4, seed=1)
    losses = vlb_loss(learning_network, coefficients, sigmas, x0.expand(T, -1, -1, -1), e, sigmas)
    from_the_noisiest = iter(e.flip(0).split(1))
    vlb = likelihood.vlb(
        predictor(learning_network, coefficients, torch.float64),
        x0,
        noise.discrete_sigmas(range(T), sigmas),
        noise=lambda: next(from_the_noisiest),
        variance=reverse.learned,
    )
    torch.testing.assert_close(losses / T, vlb.terms[0].flip(0))
    torch.testing.assert_close(losses.mean(), vlb.total[0] - vlb.prior[0])


def test_hybrid_and_vlb_refuse_a_network_without_variance() -> None:
    batch = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1), SCHEDULE[INDEX]
    for loss in (hybrid_loss, vlb_loss):
        with pytest.raises(ValueError, match="did not learn its variance"):
            loss(network, parametrization.eps(C_NOISE), SCHEDULE, *batch)
