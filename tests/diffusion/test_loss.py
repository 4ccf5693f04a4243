"""The one loss is five papers' losses, its weights are the published ones, and its companions learn the variance."""

from collections.abc import Callable

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import likelihood, noise, parametrization, reverse
from undiffuse.diffusion.denoiser import denoiser, estimator
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
CHAIN = noise.sigmas_of_betas(noise.linear_betas(1000))
CLOCK = parametrization.discrete_index(CHAIN)
SIGMA_DATA = 0.6


def spread(per_image: Tensor) -> Tensor:
    return per_image.view(-1, 1, 1, 1)


def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """Some function of all it is given."""
    asked = 0.0 if label is None else 0.1 * spread(label).to(x)
    return torch.tanh(0.8 * x) * torch.cos(spread(c_noise) / 300) + 0.3 * x.roll(1, dims=-1) + asked


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
    sigma, data = spread(CHAIN[t]), SIGMA_DATA
    weight = (sigma**2 + data**2) / (sigma * data) ** 2
    y = x0 + sigma * e
    F = network(y / (sigma**2 + data**2).sqrt(), CHAIN[t].log() / 4, label)
    D = data**2 / (sigma**2 + data**2) * y + sigma * data / (data**2 + sigma**2).sqrt() * F
    return mean(weight * (D - x0) ** 2)


INDEX = torch.tensor([0, 1, 10, 250, 500, 750, 998, 999])
TIME = torch.tensor([0.001, 0.01, 0.1, 0.4, 0.5, 0.8, 0.99, 0.999], dtype=torch.float64)
FIVE = [
    pytest.param(parametrization.eps(CLOCK), eps_loss, INDEX, CHAIN[INDEX], id="eps"),
    pytest.param(parametrization.x0(CLOCK), x0_loss, INDEX, CHAIN[INDEX], id="x0"),
    pytest.param(parametrization.v(CLOCK), v_loss, INDEX, CHAIN[INDEX], id="v"),
    pytest.param(parametrization.flow, flow_loss, TIME, TIME / (1 - TIME), id="flow"),
    pytest.param(parametrization.edm(SIGMA_DATA), edm_loss, INDEX, CHAIN[INDEX], id="edm"),
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
def test_float32_images_lose_no_digits_of_the_loss_at_any_level(
    coefficients: Parametrization, published_loss: Callable[..., Tensor], t: Tensor, sigma: Tensor
) -> None:
    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    ours = denoising_loss(network, coefficients, x0.float(), e.float(), sigma)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), published_loss(x0, e, t, None), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.003, 2e4])
@pytest.mark.parametrize("coefficients", [p.values[0] for p in FIVE], ids=[str(p.id) for p in FIVE])
def test_the_loss_holds_at_the_ends_of_the_cosine_schedule_in_float32(
    coefficients: Parametrization, sigma: float
) -> None:
    x0, e, level = normal(4, 1, 8, 8), normal(4, 1, 8, 8, seed=1), torch.full((4,), sigma, dtype=torch.float64)
    in_float32 = denoising_loss(network, coefficients, x0.float(), e.float(), level).double()
    torch.testing.assert_close(in_float32, denoising_loss(network, coefficients, x0, e, level), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("coefficients", "published_loss", "t", "sigma"), FIVE)
def test_the_loss_is_the_denoisers_squared_error_over_c_out_squared(
    coefficients: Parametrization, published_loss: Callable[..., Tensor], t: Tensor, sigma: Tensor
) -> None:
    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    D = denoiser(estimator(network, coefficients, torch.float64))(x0 + spread(sigma) * e, sigma, None)
    expected = mean((D - x0) ** 2) / coefficients(sigma).c_out ** 2
    torch.testing.assert_close(denoising_loss(network, coefficients, x0, e, sigma), expected, rtol=1e-6, atol=1e-6)


# Weights: c is of the loss, at the signal-to-noise ratio SNR, as the papers multiply it with the published loss.


def weighted(coefficients: Parametrization, weight: Weight) -> Tensor:
    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    return denoising_loss(network, coefficients, x0, e, CHAIN[INDEX], weight=weight)


@pytest.mark.parametrize(
    ("coefficients", "published_loss", "c"),
    [
        (parametrization.eps(CLOCK), eps_loss, lambda snr, gamma: snr.clamp(max=gamma) / snr),
        (parametrization.x0(CLOCK), x0_loss, lambda snr, gamma: snr.clamp(max=gamma)),
        (parametrization.v(CLOCK), v_loss, lambda snr, gamma: snr.clamp(max=gamma) / (snr + 1)),
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
def test_edms_weight_makes_another_parametrizations_loss_edms_for_the_same_denoiser(
    coefficients: Parametrization,
) -> None:
    sigma, edm = CHAIN[INDEX], parametrization.edm(SIGMA_DATA)
    denoise = denoiser(estimator(network, coefficients, torch.float64))

    def edm_network(scaled_x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        c_skip, c_out, c_in, _ = (spread(c) for c in edm(sigma))
        x = scaled_x / c_in
        return (denoise(x, sigma, label) - c_skip * x) / c_out

    x0, e = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1)
    as_edm = denoising_loss(edm_network, edm, x0, e, sigma)
    torch.testing.assert_close(weighted(coefficients, edm_weight(SIGMA_DATA)), as_edm, rtol=1e-6, atol=1e-9)


def test_edms_own_parametrization_has_edms_weight_already() -> None:
    edm = parametrization.edm(SIGMA_DATA)
    plain = denoising_loss(network, edm, normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1), CHAIN[INDEX])
    torch.testing.assert_close(weighted(edm, edm_weight(SIGMA_DATA)), plain)


# The variance learned: networks with twice the channels.


def answering(F: Tensor, v: Tensor) -> Callable[..., Tensor]:
    """A network that gives these outputs whatever it is asked, so that gradients are those of each output."""
    return lambda x, c_noise, label: torch.cat([F, v], dim=1)


def gradients(loss_of: Callable[[Callable[..., Tensor]], Tensor]) -> tuple[Tensor, Tensor]:
    """Of the sum of the losses, with respect to F and v."""
    F, v = normal(8, 3, 4, 4, seed=2).requires_grad_(), (0.5 * normal(8, 3, 4, 4, seed=3)).requires_grad_()
    of_F, of_v = torch.autograd.grad(loss_of(answering(F, v)).sum(), (F, v), materialize_grads=True)
    return of_F, of_v


@pytest.mark.parametrize("coefficients", [p.values[0] for p in FIVE[:3]], ids=["eps", "x0", "v"])
def test_the_hybrid_loss_moves_the_mean_as_l_simple_and_the_variance_as_the_bound(
    coefficients: Parametrization,
) -> None:
    batch = normal(8, 3, 4, 4).clamp(-1, 1), normal(8, 3, 4, 4, seed=1), CHAIN[INDEX]
    of_simple, none = gradients(lambda network: denoising_loss(network, coefficients, *batch))
    of_bound, of_variance = gradients(lambda network: vlb_loss(network, coefficients, CHAIN, *batch))
    of_hybrid = gradients(lambda network: hybrid_loss(network, coefficients, CHAIN, *batch))
    torch.testing.assert_close(of_hybrid[0], of_simple, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_hybrid[1], 0.001 * of_variance, rtol=1e-6, atol=0)
    # And these are no zeros that agree by themselves.
    assert not none.any()
    assert (of_bound != 0).any(dim=(1, 2, 3)).all()
    assert (of_variance != 0).any(dim=(1, 2, 3)).all()


def learning_network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    return torch.cat([network(x, c_noise, label), torch.sin(3 * x)], dim=1)


@pytest.mark.parametrize("coefficients", [p.values[0] for p in FIVE[:3]], ids=["eps", "x0", "v"])
def test_the_hybrid_loss_is_l_simple_and_a_thousandth_of_the_bound(coefficients: Parametrization) -> None:
    batch = normal(8, 3, 4, 4).clamp(-1, 1), normal(8, 3, 4, 4, seed=1), CHAIN[INDEX]
    simple = denoising_loss(learning_network, coefficients, *batch)
    bound = vlb_loss(learning_network, coefficients, CHAIN, *batch)
    hybrid = hybrid_loss(learning_network, coefficients, CHAIN, *batch)
    torch.testing.assert_close(hybrid, simple + VLB_WEIGHT * bound)
    torch.testing.assert_close(simple, denoising_loss(network, coefficients, *batch))


@pytest.mark.parametrize("betas", [noise.linear_betas(25), noise.cosine_betas(8)], ids=["linear", "cosine"])
@pytest.mark.parametrize("make", [parametrization.eps, parametrization.x0, parametrization.v])
def test_the_bounds_loss_at_every_level_averages_to_the_sum_of_its_terms(
    make: Callable[..., Parametrization], betas: Tensor
) -> None:
    chain = noise.sigmas_of_betas(betas)
    T, coefficients = len(chain), make(parametrization.discrete_index(chain))
    x0, e = normal(1, 3, 4, 4).clamp(-1, 1), normal(T, 3, 4, 4, seed=1)
    losses = vlb_loss(learning_network, coefficients, chain, x0.expand(T, -1, -1, -1), e, chain)
    from_the_noisiest = iter(e.flip(0).split(1))
    bound = likelihood.bound(
        estimator(learning_network, coefficients, torch.float64),
        x0,
        noise.discrete_sigmas(range(T), chain),
        noise=lambda: next(from_the_noisiest),
        variance=reverse.learned,
    )
    torch.testing.assert_close(losses / T, bound.terms[0].flip(0))
    torch.testing.assert_close(losses.mean(), bound.total[0] - bound.prior[0])


def test_losses_that_need_a_learned_variance_refuse_a_network_without() -> None:
    batch = normal(8, 3, 4, 4), normal(8, 3, 4, 4, seed=1), CHAIN[INDEX]
    for loss in (hybrid_loss, vlb_loss):
        with pytest.raises(ValueError, match="has not learned its variance"):
            loss(network, parametrization.eps(CLOCK), CHAIN, *batch)
