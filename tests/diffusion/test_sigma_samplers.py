"""Noise levels with large losses are sampled more often, with weights that leave the expectation unchanged."""

from collections.abc import Callable

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.diffusion import noise
from undiffuse.diffusion.noise import log_normal
from undiffuse.diffusion.sigma_samplers import (
    SIGMA_SAMPLERS,
    FixedDistribution,
    LossBalanced,
    LossSecondMomentResampler,
)

SCHEDULE = noise.sigmas_of_betas(noise.cosine_betas(5))
T, HISTORY = 5, 3


def gather_one(tensor: Tensor) -> Tensor:
    """What a single process gathers."""
    return tensor


def quantiles(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def warm(scales: list[float], uniform_prob: float = 0.001) -> LossSecondMomentResampler:
    """A resampler that has seen each level HISTORY times, with losses of about these sizes."""
    sampler = LossSecondMomentResampler(SCHEDULE, HISTORY, uniform_prob)
    for n in range(HISTORY):
        sampler.observe(SCHEDULE, torch.tensor(scales, dtype=torch.float64) * (1 + n / 10), gather_one)
    return sampler


SCALES = [0.01, 3.0, 0.5, 0.0, 1.0]


def test_a_fixed_distribution_is_its_quantile_function() -> None:
    sampler = FixedDistribution(noise.log_normal(-1.2, 1.2))
    u = quantiles(100)
    sampled = sampler.sample(u)
    assert torch.equal(sampled.sigma, noise.log_normal(-1.2, 1.2)(u))
    assert torch.equal(sampled.weight, torch.ones(100, dtype=torch.float64))
    sampler.observe(sampled.sigma, sampled.sigma, gather_one)
    sampler.load(sampler.tensors())
    assert sampler.tensors() == {}
    assert torch.equal(sampler.sample(u).sigma, sampled.sigma)


@pytest.mark.parametrize("name", SIGMA_SAMPLERS)
def test_a_discrete_one_samples_the_levels_of_the_schedule_and_no_others(name: str) -> None:
    row = SIGMA_SAMPLERS[name]
    sampled = row.make(SCHEDULE, -1.2, 1.2).sample(quantiles(100)).sigma
    assert bool(torch.isin(sampled, SCHEDULE).all()) == row.is_discrete


def test_sampling_is_uniform_until_every_level_has_a_history() -> None:
    sampler = LossSecondMomentResampler(SCHEDULE, HISTORY)
    u = quantiles(1000)
    uniform = noise.discrete_uniform(SCHEDULE)(u)
    for n in range(HISTORY):
        for level in range(T):
            sampled = sampler.sample(u)
            assert torch.equal(sampled.sigma, uniform), f"after {n} rounds and {level} levels"
            torch.testing.assert_close(sampled.weight, torch.ones(1000, dtype=torch.float64))
            sampler.observe(SCHEDULE[[level]], torch.tensor([float(level)], dtype=torch.float64), gather_one)
    assert not torch.equal(sampler.sample(u).sigma, uniform)


def test_probabilities_follow_the_rms_of_the_losses() -> None:
    uniform_prob = 0.01
    losses = 2 * normal(HISTORY, T).abs()
    sampler = LossSecondMomentResampler(SCHEDULE, HISTORY, uniform_prob)
    for row in losses:
        sampler.observe(SCHEDULE, row, gather_one)
    # Nichol & Dhariwal 2021, Eq. 18.
    rms = [(sum(float(loss) ** 2 for loss in losses[:, t]) / HISTORY) ** 0.5 for t in range(T)]
    expected = [(1 - uniform_prob) * r / sum(rms) + uniform_prob / T for r in rms]
    torch.testing.assert_close(sampler.probabilities(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_are_sampled_with_their_probabilities(dtype: torch.dtype) -> None:
    sampler, count = warm(SCALES), 100_000
    sigma = sampler.sample(quantiles(count).to(dtype)).sigma
    assert sigma.dtype == dtype
    frequencies = [(sigma == level).double().mean() for level in SCHEDULE.to(dtype)]
    # An interval holds its fraction of the even quantiles, give or take one at each end; float32 moves a few more.
    torch.testing.assert_close(torch.stack(frequencies), sampler.probabilities(), rtol=0, atol=5 / count)
    assert min(frequencies) > 0, "a level without loss is still visited"


def test_weighted_means_are_unbiased() -> None:
    sampler, count = warm(SCALES), 1_000_000
    sampled = sampler.sample(quantiles(count))
    for f in (torch.ones_like, torch.log, lambda sigma: sigma**2):
        mean = (sampled.weight * f(sampled.sigma)).mean()
        # The integral over u is exact up to two quantiles at the ends of each of T intervals.
        bound = 2 * T / count * float(sampled.weight.max() * f(SCHEDULE).abs().max())
        assert float(mean) == pytest.approx(float(f(SCHEDULE).mean()), abs=bound)


def test_weights_are_1_over_t_times_the_probability() -> None:
    sampler = warm(SCALES)
    sampled = sampler.sample(quantiles(1000))
    index = torch.searchsorted(SCHEDULE, sampled.sigma)
    torch.testing.assert_close(sampled.weight, 1 / (T * sampler.probabilities()[index]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("sampler", "first", "last"),
    [
        (LossSecondMomentResampler(SCHEDULE, HISTORY), 0, 4),
        (warm(SCALES), 0, 4),
        (warm([0.0, 1.0, 1.0, 2.0, 0.0], uniform_prob=0.0), 1, 3),
        (warm([2.0, 0.0, 0.0, 0.0, 0.0], uniform_prob=0.0), 0, 0),
    ],
)
def test_both_ends_of_u_give_a_level_of_some_probability(
    sampler: LossSecondMomentResampler, first: int, last: int, dtype: torch.dtype
) -> None:
    sigma, weight = sampler.sample(torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype))
    assert torch.equal(sigma, SCHEDULE[[first, last]].to(dtype))
    assert torch.isfinite(weight).all()


def test_the_history_keeps_the_last_losses_oldest_first() -> None:
    sampler = LossSecondMomentResampler(SCHEDULE, HISTORY)
    index, losses = torch.tensor([2, 0, 2, 2, 0, 2, 2]), torch.arange(7, dtype=torch.float64)
    for chunk in (slice(0, 3), slice(3, 7)):  # In each chunk a level occurs more than once.
        sampler.observe(SCHEDULE[index[chunk]], losses[chunk], gather_one)
    assert sampler.seen.tolist() == [2, 0, 3, 0, 0]
    assert sampler.losses[2].tolist() == [3, 5, 6]
    assert sampler.losses[0].tolist() == [1, 4, 0]


def test_levels_are_recognized_in_float32_too() -> None:
    schedule = noise.sigmas_of_betas(noise.cosine_betas(4000))
    sampler = LossSecondMomentResampler(schedule, history=1)
    sampler.observe(schedule.float(), torch.arange(4000, dtype=torch.float32), gather_one)
    assert sampler.losses[:, 0].tolist() == list(range(4000))


def test_a_restored_sampler_continues_the_same() -> None:
    sampler = LossSecondMomentResampler(SCHEDULE, HISTORY)
    rounds = [(SCHEDULE[[seed % T, 2, 4 * seed % T]], normal(3, seed=seed).abs()) for seed in range(20)]
    for sigma, loss in rounds[:10]:
        sampler.observe(sigma, loss, gather_one)
    again = LossSecondMomentResampler(SCHEDULE, HISTORY)
    again.load({name: tensor.clone() for name, tensor in sampler.tensors().items()})
    for sigma, loss in rounds[10:]:
        for each in (sampler, again):
            each.observe(sigma, loss, gather_one)
        assert torch.equal(again.probabilities(), sampler.probabilities())
    u = quantiles(1000)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.sample(u), sampler.sample(u), strict=True))
    assert sampler.tensors().keys() == {"losses", "seen"}


def test_processes_learn_what_one_process_would() -> None:
    sigma, loss = SCHEDULE[torch.tensor([0, 4, 4, 2, 4, 4])], normal(6).abs()
    one = LossSecondMomentResampler(SCHEDULE, HISTORY)
    one.observe(sigma, loss, gather_one)
    for rank in range(2):
        own_sigma, own_loss = sigma[3 * rank : 3 * rank + 3], loss[3 * rank : 3 * rank + 3]

        def gathered(tensor: Tensor, own_sigma: Tensor = own_sigma) -> Tensor:
            return sigma if tensor is own_sigma else loss

        of_many = LossSecondMomentResampler(SCHEDULE, HISTORY)
        of_many.observe(own_sigma, own_loss, gathered)
        for name, tensor in one.tensors().items():
            assert torch.equal(of_many.tensors()[name], tensor)


def test_balanced_levels_count_alike_whatever_their_losses() -> None:
    """After balancing, weight times mean loss is the same everywhere, and the weights have mean 1."""
    sampler = LossBalanced(log_normal(-1.2, 1.2), bins=16, memory=2000)
    rng = torch.Generator().manual_seed(0)
    per_bin = 4000
    for _ in range(per_bin * 16 // 500):
        sample = sampler.sample(torch.rand(500, generator=rng, dtype=torch.float64))
        loss = (1 + sample.sigma) * torch.rand(500, generator=rng, dtype=torch.float64)
        sampler.observe(sample.sigma, loss, lambda tensor: tensor)
    middles = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    weight = sampler.sample(middles).weight
    assert float(weight.mean()) == pytest.approx(1)
    balanced = weight * sampler.means
    # A running mean of 2,000 uniform losses is off by 1 / sqrt(3 * 2000), relatively: four of them.
    assert float(balanced.max() / balanced.min() - 1) < 2 * 4 / (3 * 2000) ** 0.5
    assert float(weight[0] / weight[-1]) > 2


def test_what_was_assumed_before_the_first_loss_does_not_count() -> None:
    sampler = LossBalanced(log_normal(-1.2, 1.2), bins=2)
    low, high = sampler.sample(torch.tensor([0.1, 0.9], dtype=torch.float64)).sigma
    sampler.observe(torch.stack([low, low, high]), torch.tensor([2.0, 4.0, 9.0], dtype=torch.float64), gather_one)
    assert sampler.means.tolist() == pytest.approx([3, 9])
    assert sampler.sample(torch.tensor([0.1, 0.9], dtype=torch.float64)).weight.tolist() == pytest.approx([1.5, 0.5])


def test_balancing_goes_on_from_a_checkpoint() -> None:
    one, other = (LossBalanced(log_normal(-1.2, 1.2)) for _ in range(2))
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    one.observe(one.sample(u).sigma, u, lambda tensor: tensor)
    other.load({name: tensor.clone() for name, tensor in one.tensors().items()})
    assert torch.equal(one.sample(u).weight, other.sample(u).weight)
    assert not torch.equal(one.sample(u).weight, torch.ones_like(u))


def test_balancing_takes_a_batch_like_one_image_after_the_other() -> None:
    at_once, one_by_one = (LossBalanced(log_normal(-1.2, 1.2), bins=4, memory=6) for _ in range(2))
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):  # The memory is full only after the first batch.
        sigma = at_once.sample(torch.rand(20, generator=rng, dtype=torch.float64)).sigma
        loss = torch.rand(20, generator=rng, dtype=torch.float64)
        at_once.observe(sigma, loss, gather_one)
        for single_sigma, single_loss in zip(sigma.split(1), loss.split(1), strict=True):
            one_by_one.observe(single_sigma, single_loss, gather_one)
        assert torch.equal(at_once.seen, one_by_one.seen)
        torch.testing.assert_close(at_once.means, one_by_one.means, rtol=1e-12, atol=0)
    last = float(loss[at_once._bin(sigma) == 0][-1])
    before = at_once.means[0].clone()
    at_once.observe(sigma[at_once._bin(sigma) == 0][-1:], torch.tensor([last], dtype=torch.float64), gather_one)
    assert float(at_once.means[0]) == pytest.approx(float(before + (last - before) / 6)), "a mean over the memory"


@pytest.mark.parametrize("make", [lambda: LossSecondMomentResampler(SCHEDULE, HISTORY), lambda: warm(SCALES)])
def test_a_batch_that_does_not_count_teaches_nothing(make: Callable[[], LossSecondMomentResampler]) -> None:
    for sampler in (make(), LossBalanced(log_normal(-1.2, 1.2))):
        before = {name: tensor.clone() for name, tensor in sampler.tensors().items()}
        sampler.observe(SCHEDULE, torch.full((T,), float("nan")), gather_one, unless=torch.tensor(True))
        assert all(torch.equal(sampler.tensors()[name], tensor) for name, tensor in before.items())
        sampler.observe(SCHEDULE, torch.full((T,), 2.0), gather_one, unless=torch.tensor(False))
        assert not all(torch.equal(sampler.tensors()[name], tensor) for name, tensor in before.items())
