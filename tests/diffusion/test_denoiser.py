"""The one loss is five papers' losses, and guidance, clipping and the missing label do what they say."""

from collections.abc import Callable

import pytest
import torch
from tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, parametrization
from undiffuse.diffusion.denoiser import NO_LABEL, clipped, denoiser, denoising_loss, guided
from undiffuse.diffusion.parametrization import Parametrization

ALPHA_BAR = torch.cumprod(1 - noise.linear_betas(1000), 0)
CHAIN = noise.sigmas_of_betas(noise.linear_betas(1000))
CLOCK = parametrization.chain_clock(CHAIN)
SIGMA_DATA = 0.6


def spread(per_image: Tensor) -> Tensor:
    return per_image.view(-1, 1, 1, 1)


def network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """Some function of all it is given."""
    asked = 0.0 if label is None else 0.1 * spread(label).to(x)
    return torch.tanh(0.8 * x) * torch.cos(spread(c_noise) / 300) + 0.3 * x.roll(1, dims=-1) + asked


# The losses as their papers write them, on the picture `x0`, the noise `e` and DDPM's index or flow's time `t`.


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
    """Lipman et al. 2023, Eq. 23 without sigma_min, time running from the picture to the noise."""
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
def test_float32_pictures_lose_no_digits_of_the_loss_at_any_level(
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
    D = denoiser(network, coefficients, torch.float64)(x0 + spread(sigma) * e, sigma, None)
    expected = mean((D - x0) ** 2) / coefficients(sigma).c_out ** 2
    torch.testing.assert_close(denoising_loss(network, coefficients, x0, e, sigma), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [parametrization.eps, parametrization.x0, parametrization.v])
def test_a_float32_network_is_told_the_exact_index_in_training_and_sampling(make: Callable) -> None:
    told = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        told.append(c_noise)
        return x

    pictures = torch.zeros(1000, 1, 1, 1)
    denoising_loss(watching, make(CLOCK), pictures, pictures, CHAIN)
    denoiser(watching, make(CLOCK))(pictures.double(), CHAIN, None)
    for c_noise in told:
        assert torch.equal(c_noise, torch.arange(1000, dtype=torch.float32))


def test_the_network_computes_in_its_dtype_and_the_denoiser_in_that_of_x() -> None:
    seen = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        seen.append((x.dtype, c_noise.dtype))
        return network(x, c_noise, label)

    x, sigma = normal(2, 1, 4, 4), torch.tensor([0.1, 9.0], dtype=torch.float64)
    estimate = denoiser(watching, parametrization.edm(0.5))(x, sigma, None)
    assert seen == [(torch.float32, torch.float32)]
    assert estimate.dtype == torch.float64
    # Only the network's share is rounded: where c_skip is 1 and c_out small, the rest keeps its digits.
    exact = denoiser(network, parametrization.edm(0.5), torch.float64)(x, sigma, None)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-6)


def test_without_a_label_the_network_is_told_none() -> None:
    told = []

    def watching(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        told.append(label)
        return x

    x, sigma = normal(2, 1, 4, 4), torch.ones(2, dtype=torch.float64)
    denoise = denoiser(watching, parametrization.edm(0.5))
    denoise(x, sigma, None)
    guided(denoise, 3.0)(x, sigma, None)
    clipped(denoise)(x, sigma, None)
    denoising_loss(watching, parametrization.edm(0.5), x, x, sigma)
    assert told == [None] * 4


def test_guidance_extrapolates_from_no_label_through_the_label() -> None:
    denoise = denoiser(network, parametrization.v(CLOCK), torch.float64)
    x, sigma, label = normal(3, 1, 4, 4), CHAIN[[10, 500, 999]], torch.tensor([0, 1, 2])
    with_label, without = denoise(x, sigma, label), denoise(x, sigma, torch.full((3,), NO_LABEL))
    for scale in (0.0, 1.0, 1.5, 4.0):
        estimate = guided(denoise, scale)(x, sigma, label)
        # Ho & Salimans 2022, Eq. 6, as they write it: on eps, with w = scale - 1.
        eps, eps_without = (x - with_label) / spread(sigma), (x - without) / spread(sigma)
        guided_eps = scale * eps - (scale - 1) * eps_without
        torch.testing.assert_close(estimate, x - spread(sigma) * guided_eps)


def test_guidance_asks_once_where_once_is_enough() -> None:
    batches = []

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        batches.append(len(x))
        return x

    x, sigma, label = normal(3, 1, 4, 4), torch.ones(3), torch.tensor([0, 1, 2])
    guided(denoise, 1.0)(x, sigma, label)
    guided(denoise, 2.0)(x, sigma, None)
    guided(denoise, 2.0)(x, sigma, label)
    assert batches == [3, 3, 6]


def test_clipping_holds_the_estimate_in_range_and_leaves_the_rest() -> None:
    estimate = torch.tensor([-7.0, -1.0, -0.3, 0.0, 0.999, 1.0, 1.001]).view(1, 1, 1, 7)
    clip = clipped(lambda x, sigma, label: estimate)(estimate, torch.ones(1), None)
    assert torch.equal(clip.flatten(), torch.tensor([-1.0, -1.0, -0.3, 0.0, 0.999, 1.0, 1.0]))
