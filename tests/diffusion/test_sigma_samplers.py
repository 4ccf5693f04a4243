"""Drawing where losses are large, and the weights that leave the expectation as it was."""

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise
from undiffuse.diffusion.sigma_samplers import Fixed, LossSecondMomentResampler

CHAIN = noise.sigmas_of_betas(noise.cosine_betas(5))
T, HISTORY = 5, 3


def alone(tensor: Tensor) -> Tensor:
    """What one process gathers."""
    return tensor


def quantiles(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def warm(scales: list[float], uniform_share: float = 0.001) -> LossSecondMomentResampler:
    """Has seen each level HISTORY times, with losses of about these sizes."""
    draws = LossSecondMomentResampler(CHAIN, HISTORY, uniform_share)
    for n in range(HISTORY):
        draws.observe(CHAIN, torch.tensor(scales, dtype=torch.float64) * (1 + n / 10), alone)
    return draws


SCALES = [0.01, 3.0, 0.5, 0.0, 1.0]


def test_fixed_draws_are_the_quantile_function_with_weights_of_one() -> None:
    draws = Fixed(noise.log_normal(-1.2, 1.2))
    u = quantiles(100)
    drawn = draws.draw(u)
    assert torch.equal(drawn.sigma, noise.log_normal(-1.2, 1.2)(u))
    assert torch.equal(drawn.weight, torch.ones(100, dtype=torch.float64))
    draws.observe(drawn.sigma, drawn.sigma, alone)
    draws.load(draws.tensors())
    assert draws.tensors() == {}
    assert torch.equal(draws.draw(u).sigma, drawn.sigma)


def test_until_every_level_has_its_history_all_are_drawn_alike_with_weight_one() -> None:
    draws = LossSecondMomentResampler(CHAIN, HISTORY)
    u = quantiles(1000)
    uniform = noise.discrete_uniform(CHAIN)(u)
    for n in range(HISTORY):
        for level in range(T):
            drawn = draws.draw(u)
            assert torch.equal(drawn.sigma, uniform), f"after {n} rounds and {level} levels"
            torch.testing.assert_close(drawn.weight, torch.ones(1000, dtype=torch.float64))
            draws.observe(CHAIN[[level]], torch.tensor([float(level)], dtype=torch.float64), alone)
    assert not torch.equal(draws.draw(u).sigma, uniform)


def test_then_levels_are_drawn_by_the_root_mean_square_of_their_losses_and_a_uniform_share() -> None:
    uniform_share = 0.01
    losses = 2 * normal(HISTORY, T).abs()
    draws = LossSecondMomentResampler(CHAIN, HISTORY, uniform_share)
    for row in losses:
        draws.observe(CHAIN, row, alone)
    # Nichol & Dhariwal 2021, Eq. 18.
    size = [(sum(float(loss) ** 2 for loss in losses[:, t]) / HISTORY) ** 0.5 for t in range(T)]
    expected = [(1 - uniform_share) * s / sum(size) + uniform_share / T for s in size]
    torch.testing.assert_close(draws.probabilities(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_level_is_drawn_as_often_as_its_probability_says(dtype: torch.dtype) -> None:
    draws, count = warm(SCALES), 100_000
    sigma = draws.draw(quantiles(count).to(dtype)).sigma
    assert sigma.dtype == dtype
    shares = [(sigma == level).double().mean() for level in CHAIN.to(dtype)]
    # Even quantiles: an interval holds its share of them but for one at each end, and float32 moves a few more.
    torch.testing.assert_close(torch.stack(shares), draws.probabilities(), rtol=0, atol=5 / count)
    assert min(shares) > 0, "a level without loss is still visited"


def test_the_weighted_mean_over_the_draws_is_the_uniform_mean_of_any_function_of_the_level() -> None:
    draws, count = warm(SCALES), 1_000_000
    drawn = draws.draw(quantiles(count))
    for f in (torch.ones_like, torch.log, lambda sigma: sigma**2):
        mean = (drawn.weight * f(drawn.sigma)).mean()
        # The integral over u is exact but for two quantiles at each of T intervals' ends.
        bound = 2 * T / count * float(drawn.weight.max() * f(CHAIN).abs().max())
        assert float(mean) == pytest.approx(float(f(CHAIN).mean()), abs=bound)


def test_the_weights_are_one_over_t_times_the_probability() -> None:
    draws = warm(SCALES)
    drawn = draws.draw(quantiles(1000))
    index = torch.searchsorted(CHAIN, drawn.sigma)
    torch.testing.assert_close(drawn.weight, 1 / (T * draws.probabilities()[index]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("draws", "first", "last"),
    [
        (LossSecondMomentResampler(CHAIN, HISTORY), 0, 4),
        (warm(SCALES), 0, 4),
        (warm([0.0, 1.0, 1.0, 2.0, 0.0], uniform_share=0.0), 1, 3),
        (warm([2.0, 0.0, 0.0, 0.0, 0.0], uniform_share=0.0), 0, 0),
    ],
)
def test_both_ends_of_the_uniform_numbers_draw_a_level_that_has_a_probability(
    draws: LossSecondMomentResampler, first: int, last: int, dtype: torch.dtype
) -> None:
    sigma, weight = draws.draw(torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype))
    assert torch.equal(sigma, CHAIN[[first, last]].to(dtype))
    assert torch.isfinite(weight).all()


def test_the_history_keeps_the_last_losses_of_a_level_oldest_first() -> None:
    draws = LossSecondMomentResampler(CHAIN, HISTORY)
    index, losses = torch.tensor([2, 0, 2, 2, 0, 2, 2]), torch.arange(7, dtype=torch.float64)
    for portion in (slice(0, 3), slice(3, 7)):  # In each a level comes more than once.
        draws.observe(CHAIN[index[portion]], losses[portion], alone)
    assert draws.seen.tolist() == [2, 0, 3, 0, 0]
    assert draws.losses[2].tolist() == [3, 5, 6]
    assert draws.losses[0].tolist() == [1, 4, 0]


def test_levels_are_recognized_in_float32_too() -> None:
    chain = noise.sigmas_of_betas(noise.cosine_betas(4000))
    draws = LossSecondMomentResampler(chain, history=1)
    draws.observe(chain.float(), torch.arange(4000, dtype=torch.float32), alone)
    assert draws.losses[:, 0].tolist() == list(range(4000))


def test_what_was_learned_is_taken_up_again_and_goes_on_the_same() -> None:
    draws = LossSecondMomentResampler(CHAIN, HISTORY)
    rounds = [(CHAIN[[seed % T, 2, 4 * seed % T]], normal(3, seed=seed).abs()) for seed in range(20)]
    for sigma, loss in rounds[:10]:
        draws.observe(sigma, loss, alone)
    again = LossSecondMomentResampler(CHAIN, HISTORY)
    again.load({name: tensor.clone() for name, tensor in draws.tensors().items()})
    for sigma, loss in rounds[10:]:
        for each in (draws, again):
            each.observe(sigma, loss, alone)
        assert torch.equal(again.probabilities(), draws.probabilities())
    u = quantiles(1000)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.draw(u), draws.draw(u), strict=True))
    assert draws.tensors().keys() == {"losses", "seen"}


def test_processes_that_gather_learn_what_one_alone_would_of_the_whole_batch() -> None:
    sigma, loss = CHAIN[torch.tensor([0, 4, 4, 2, 4, 4])], normal(6).abs()
    one = LossSecondMomentResampler(CHAIN, HISTORY)
    one.observe(sigma, loss, alone)
    for rank in range(2):
        own_sigma, own_loss = sigma[3 * rank : 3 * rank + 3], loss[3 * rank : 3 * rank + 3]

        def gathered(tensor: Tensor, own_sigma: Tensor = own_sigma) -> Tensor:
            return sigma if tensor is own_sigma else loss

        of_many = LossSecondMomentResampler(CHAIN, HISTORY)
        of_many.observe(own_sigma, own_loss, gathered)
        for name, tensor in one.tensors().items():
            assert torch.equal(of_many.tensors()[name], tensor)
