"""Every preset builds a network that fits its images, and the published ones have the settings of their papers."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from undiffuse.config import Config
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.store import DataConfig, Store
from undiffuse.networks.layers import SelfAttention
from undiffuse.networks.unet import UNetConfig
from undiffuse.presets import RECIPES, configure
from undiffuse.sampling.options import noise_levels
from undiffuse.utils.names import PRESETS

TEN = tuple("0123456789")


def fitted(
    preset: str,
    size: tuple[int, int],
    channels: Literal[1, 3, 4],
    class_names: tuple[str, ...] = TEN,
    conditional: bool = True,
) -> Config:
    """The preset's config for images like these."""
    store = Store(Path(), "images", "all", "0123", 100, size, channels, class_names, ())
    return configure(preset, store, DataConfig(size=size, channels=channels), 3, conditional)


def unet(config: Config) -> UNetConfig:
    assert isinstance(config.network, UNetConfig)
    return config.network


@pytest.mark.parametrize(
    ("preset", "size", "channels"),
    [
        ("digits", (16, 16), 1),
        ("small", (32, 32), 3),
        ("small", (64, 64), 4),
        ("small", (24, 40), 1),
        ("flowers64", (64, 64), 3),
        ("cifar10-ddpm", (32, 32), 3),
        ("cifar10-iddpm", (32, 32), 3),
        ("cifar10-iddpm-vlb", (32, 32), 3),
        ("cifar10-edm", (32, 32), 3),
        ("cifar10-flow", (32, 32), 3),
    ],
)
def test_a_preset_builds_a_network_for_its_images(
    preset: str, size: tuple[int, int], channels: Literal[1, 3, 4]
) -> None:
    config = fitted(preset, size, channels)
    with torch.device("meta"):
        network = config.build_network()
    x = torch.empty(2, channels, *size, device="meta")
    c_noise, label = torch.empty(2, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    learned = config.diffusion.learned_variance
    assert network(x, c_noise, label).shape == (2, channels * (1 + learned), *size)
    # The network really has the resolutions that are named for attention; one block is always in the middle.
    if size != (24, 40):
        assert sum(isinstance(module, SelfAttention) for module in network.modules()) > 1
    assert len(noise_levels(config.diffusion, config.sampling)) == config.sampling.steps + 1
    assert (config.seed, config.preset, config.data_content) == (3, preset, "0123")


def test_every_preset_has_a_name_and_a_recipe() -> None:
    assert tuple(RECIPES) == PRESETS


def test_classes_are_used_where_preset_and_user_want_them(preset_config: Callable[[str], Config]) -> None:
    for config, names in (
        (preset_config("small"), ("cats", "dogs", "snow")),
        (preset_config("cifar10-ddpm"), ()),
        (fitted("small", (32, 32), 3, conditional=False), ()),
        (fitted("small", (32, 32), 3, class_names=()), ()),
    ):
        assert config.class_names == names
        assert config.network.classes == len(names)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(preset: str) -> None:
    with pytest.raises(ValueError, match=r"size 33x32 does not fit this network.*for example 32x32"):
        fitted(preset, (33, 32), 3)


def test_cifar10_ddpm_has_the_settings_of_ho_et_al() -> None:
    config = fitted("cifar10-ddpm", (32, 32), 3)
    # Ho et al. 2020, section 4 and appendix B: 35.7 M parameters, T = 1000, beta from 1e-4 to 0.02, eps, L_simple.
    with torch.device("meta"):  # No memory for the weights.
        network = config.build_network()
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307
    assert unet(config).dropout == 0.1
    schedule = config.diffusion.discrete_schedule()
    assert len(schedule) == 1000
    torch.testing.assert_close(1 / (1 + schedule[[0]] ** 2), torch.tensor([1 - 1e-4], dtype=torch.float64))
    assert (config.diffusion.parametrization, config.diffusion.sigma_sampler) == ("eps", "discrete_uniform")
    # Adam at 2e-4 after a warm-up of 5,000 iterations (released code), 800,000 iterations of 128, horizontal flips, EMA
    # decay 0.9999 an iteration.
    optimizer, training = config.optimizer, config.training
    assert (optimizer.muon, optimizer.learning_rate, optimizer.betas) == (False, 2e-4, (0.9, 0.999))
    assert (optimizer.weight_decay, optimizer.decay_fraction, optimizer.warmup_images) == (0, 0, 128 * 5000)
    assert (training.batch, training.total_images) == (128, 128 * 800_000)
    assert config.augmentation == AugmentationConfig(flip=True)
    assert 0.5 ** (training.batch / training.ema_halflife_images) == pytest.approx(0.9999, abs=1e-9)
    # Sampled by Algorithm 2 over all timesteps, x0 clipped.
    assert (config.sampling.sampler, config.sampling.steps, config.sampling.clip) == ("ancestral", 1000, True)
    assert torch.equal(noise_levels(config.diffusion, config.sampling)[:-1], schedule.flip(0))


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("cifar10-ddpm", 35_746_307),  # Ho et al. 2020: 35.7 M.
        ("cifar10-iddpm", 52_546_438),  # The released network, see tests/networks/test_published.py.
        ("cifar10-iddpm-vlb", 52_546_438),
        ("cifar10-edm", 55_733_891 - 9 * 128 + 11 * 512),  # Karras et al. 2022, without augmentation and with labels.
        ("cifar10-flow", 55_676_419),
    ],
)
def test_a_published_preset_has_its_number_of_parameters(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        network = fitted(preset, (32, 32), 3).build_network()
    assert sum(p.numel() for p in network.parameters()) == parameters


def decay_per_iteration(config: Config) -> float:
    return 0.5 ** (config.training.batch / config.training.ema_halflife_images)


def test_cifar10_iddpm_has_the_settings_of_nichol_and_dhariwal() -> None:
    config = fitted("cifar10-iddpm", (32, 32), 3)
    diffusion, training, optimizer = config.diffusion, config.training, config.optimizer
    assert (diffusion.schedule, diffusion.num_timesteps, diffusion.parametrization) == ("cosine", 4000, "eps")
    assert (diffusion.objective, diffusion.sigma_sampler, diffusion.learned_variance) == (
        "hybrid",
        "discrete_uniform",
        True,
    )
    assert (training.batch, training.total_images) == (128, 128 * 500_000)
    assert (optimizer.muon, optimizer.learning_rate, optimizer.betas) == (False, 1e-4, (0.9, 0.999))
    assert decay_per_iteration(config) == pytest.approx(0.9999, abs=1e-9)
    assert unet(config).dropout == 0.3
    assert config.augmentation == AugmentationConfig()
    assert config.class_names == ()
    vlb = fitted("cifar10-iddpm-vlb", (32, 32), 3)
    assert (vlb.diffusion.objective, vlb.diffusion.sigma_sampler) == ("vlb", "loss_second_moment")
    assert (vlb.network, vlb.training, vlb.optimizer) == (config.network, training, optimizer)


def test_cifar10_edm_has_the_settings_of_karras_et_al() -> None:
    config = fitted("cifar10-edm", (32, 32), 3)
    diffusion, training, optimizer = config.diffusion, config.training, config.optimizer
    assert (diffusion.parametrization, diffusion.sigma_sampler) == ("edm", "log_normal")
    assert (diffusion.sigma_mean, diffusion.sigma_std, diffusion.sigma_data) == (-1.2, 1.2, 0.5)
    assert (diffusion.sigma_min, diffusion.sigma_max) == (0.002, 80.0)
    assert (training.batch, training.total_images, training.ema_halflife_images) == (512, 200_000_000, 500_000)
    assert (optimizer.learning_rate, optimizer.warmup_images, optimizer.betas) == (1e-3, 10_000_000, (0.9, 0.999))
    assert (unet(config).dropout, config.sampling.sampler, config.sampling.steps) == (0.13, "heun", 18)
    assert config.class_names == TEN


def test_cifar10_flow_samples_the_noise_levels_of_edm() -> None:
    config = fitted("cifar10-flow", (32, 32), 3)
    edm = fitted("cifar10-edm", (32, 32), 3)
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    ours, theirs = (each.diffusion.make_sigma_sampler().sample(u).sigma for each in (config, edm))
    torch.testing.assert_close(ours, theirs)
    assert (config.diffusion.parametrization, config.training.batch) == ("flow", 512)
    assert decay_per_iteration(config) == pytest.approx(0.999, abs=1e-8)
