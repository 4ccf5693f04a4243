"""Every preset makes a network that fits its pictures, and the published one has its paper's settings."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from undiffuse.config import Config
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.store import DataConfig, Store
from undiffuse.names import PRESETS
from undiffuse.networks.layers import SelfAttention
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.presets import RECIPES, configure

TEN = tuple("0123456789")


def fitted(
    preset: str, size: tuple[int, int], channels: int, class_names: tuple[str, ...] = TEN, conditional: bool = True
) -> Config:
    """The preset's config for pictures like these."""
    store = Store(Path(), "pictures", "all", "0123", 100, size, channels, class_names, ())
    return configure(preset, store, DataConfig(size=size, channels=channels), 3, conditional)


def built(config: UNetConfig) -> UNet:
    """The network without memory for its weights: all but the numbers is there."""
    with torch.device("meta"):
        return UNet(config)


@pytest.mark.parametrize(
    ("preset", "size", "channels"),
    [
        ("digits", (16, 16), 1),
        ("small", (32, 32), 3),
        ("small", (64, 64), 4),
        ("small", (24, 40), 1),
        ("cifar10-ddpm", (32, 32), 3),
    ],
)
def test_a_preset_makes_a_network_for_its_pictures(preset: str, size: tuple[int, int], channels: int) -> None:
    config = fitted(preset, size, channels)
    network = built(config.network)
    x = torch.empty(2, channels, *size, device="meta")
    c_noise, label = torch.empty(2, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    assert network(x, c_noise, label).shape == x.shape
    # The resolutions named for attention are ones that the network has, not only the middle's.
    if size != (24, 40):
        assert sum(isinstance(module, SelfAttention) for module in network.modules()) > 1
    assert len(config.diffusion.grid(config.sampling.steps)) == config.sampling.steps + 1
    assert (config.seed, config.preset, config.data_content) == (3, preset, "0123")


def test_every_name_is_a_recipe_and_every_recipe_has_a_name() -> None:
    assert tuple(RECIPES) == PRESETS


def test_classes_are_told_where_preset_and_user_want_them(preset_config: Callable[[str], Config]) -> None:
    for config, names in (
        (preset_config("small"), ("cats", "dogs", "snow")),
        (preset_config("cifar10-ddpm"), ()),
        (fitted("small", (32, 32), 3, conditional=False), ()),
        (fitted("small", (32, 32), 3, class_names=()), ()),
    ):
        assert config.class_names == names
        assert config.network.classes == len(names)


@pytest.mark.parametrize("preset", PRESETS)
def test_pictures_that_do_not_fit_the_network_are_refused_with_a_size_that_does(preset: str) -> None:
    with pytest.raises(ValueError, match=r"size 33x32 does not fit this network.*such as 32x32"):
        fitted(preset, (33, 32), 3)


def test_cifar10_ddpm_is_ho_et_als_setting() -> None:
    config = fitted("cifar10-ddpm", (32, 32), 3)
    # Ho et al. 2020, section 4 and appendix B: 35.7 M parameters, T = 1000, beta from 1e-4 to 0.02, eps, L_simple.
    assert sum(parameter.numel() for parameter in built(config.network).parameters()) == 35_746_307
    assert config.network.dropout == 0.1
    chain = config.diffusion.chain()
    assert len(chain) == 1000
    torch.testing.assert_close(1 / (1 + chain[[0]] ** 2), torch.tensor([1 - 1e-4], dtype=torch.float64))
    assert (config.diffusion.parametrization, config.diffusion.draw) == ("eps", "discrete_uniform")
    # Adam at 2e-4 after a warm-up of 5,000 iterations (released code), 800,000 iterations of 128, horizontal flips, EMA
    # decay 0.9999 an iteration.
    optimizer, training = config.optimizer, config.training
    assert (optimizer.muon, optimizer.learning_rate, optimizer.betas) == (False, 2e-4, (0.9, 0.999))
    assert (optimizer.weight_decay, optimizer.decay_share, optimizer.warmup_images) == (0, 0, 128 * 5000)
    assert (training.batch, training.total_images) == (128, 128 * 800_000)
    assert config.augmentation == AugmentationConfig(flip=True)
    assert 0.5 ** (training.batch / training.ema_halflife_images) == pytest.approx(0.9999, abs=1e-9)
    # Sampled by Algorithm 2 through all of the chain, x0 clipped.
    assert (config.sampling.sampler, config.sampling.steps, config.sampling.clip) == ("ancestral", 1000, True)
    assert torch.equal(config.diffusion.grid(1000)[:-1], chain.flip(0))
