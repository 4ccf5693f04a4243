"""Guidance: what it adds, where it acts, and what it costs."""

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise, parametrization
from undiffuse.diffusion.denoiser import Prediction, predictor, spread
from undiffuse.diffusion.guidance import guided
from undiffuse.utils.conditions import NO_LABEL

SCHEDULE = noise.sigmas_of_betas(noise.linear_betas(1000))


def learning_network(x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
    """Some function of all its arguments, with channels for the variance."""
    shift = 0.0 if label is None else 0.3 * spread(label).to(x)
    F = torch.tanh(0.8 * x) * torch.cos(spread(c_noise) / 300) + shift
    return torch.cat([F, torch.sin(x + shift)], dim=1)


def test_guidance_extrapolates_from_no_label_to_the_label() -> None:
    predict = predictor(learning_network, parametrization.v(parametrization.discrete_index(SCHEDULE)), torch.float64)
    x, sigma, label = normal(3, 1, 4, 4), SCHEDULE[[10, 500, 999]], torch.tensor([0, 1, 2])
    with_label, without = predict(x, sigma, label), predict(x, sigma, torch.full((3,), NO_LABEL))
    for scale in (0.0, 1.0, 1.5, 4.0):
        x0, fraction = guided(predict, scale)(x, sigma, label)
        # Ho & Salimans 2022, Eq. 6, as they write it: on eps, with w = scale - 1.
        eps, eps_without = (x - with_label.x0) / spread(sigma), (x - without.x0) / spread(sigma)
        guided_eps = scale * eps - (scale - 1) * eps_without
        torch.testing.assert_close(x0, x - spread(sigma) * guided_eps)
        # The variance is that with the label: only the image is extrapolated.
        torch.testing.assert_close(fraction, with_label.variance_fraction)


def test_guidance_evaluates_once_where_once_is_enough() -> None:
    batches = []

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        batches.append(len(x))
        return Prediction(x, None)

    x, sigma, label = normal(3, 1, 4, 4), torch.ones(3), torch.tensor([0, 1, 2])
    guided(predict, 1.0)(x, sigma, label)
    guided(predict, 2.0)(x, sigma, None)
    assert guided(predict, 2.0)(x, sigma, label).variance_fraction is None
    assert batches == [3, 3, 6]


def test_autoguidance_goes_away_from_the_guide() -> None:
    x, sigma, label = normal(3, 1, 4, 4), torch.ones(3, dtype=torch.float64), torch.tensor([0, 1, 2])

    def better(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        return Prediction(0.5 * x, x)

    def weaker(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        return Prediction(0.2 * x, None)

    for labels in (label, None):
        # Karras et al. 2024a, Eq. 3: w D1 + (1 - w) D0.
        x0, fraction = guided(better, 3.0, weaker)(x, sigma, labels)
        torch.testing.assert_close(x0, 3.0 * 0.5 * x - 2.0 * 0.2 * x)
        assert fraction is x


@pytest.mark.parametrize("interval", [(0.28, 1.6), (0.0, 1.6), (0.28, float("inf"))])
def test_guidance_acts_in_its_interval_image_by_image(interval: tuple[float, float]) -> None:
    low, high = interval
    sigma = torch.tensor([0.1, 0.28, 0.281, 1.0, 1.6, 1.7], dtype=torch.float64)
    x, label = normal(6, 1, 4, 4), torch.arange(6)

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        assert label is not None
        return Prediction(x * spread(label + 2), None)

    x0 = guided(predict, 3.0, interval=interval)(x, sigma, label).x0
    always, never = guided(predict, 3.0)(x, sigma, label).x0, predict(x, sigma, label).x0
    inside = spread((low < sigma) & (sigma <= high))
    torch.testing.assert_close(x0, torch.where(inside, always, never))


def test_outside_of_its_interval_guidance_costs_nothing() -> None:
    batches = []

    def predict(x: Tensor, sigma: Tensor, label: Tensor | None) -> Prediction:
        batches.append(len(x))
        return Prediction(x, None)

    for level in (0.1, 1.0, 5.0):
        x, sigma, label = normal(3, 1, 4, 4), torch.full((3,), level), torch.tensor([0, 1, 2])
        guided(predict, 2.0, interval=(0.28, 1.6))(x, sigma, label)
        guided(predict, 2.0, predict, (0.28, 1.6))(x, sigma, label)
    assert batches == [3, 3, 6, 3, 3, 3, 3]
