"""Under pytest every jaxtyping shape and every annotation of undiffuse is enforced; at run time they cost nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.chromium import NAMES, find_browser
from jaxtyping import install_import_hook

if TYPE_CHECKING:  # The hook must come before the package.
    from torch import nn

    from undiffuse.config import Config
    from undiffuse.features.networks import FeatureNetwork
    from undiffuse.networks.unet import UNet, UNetConfig

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # The tests' numbers are the CPU's.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # Networks this small run fastest on one: others mostly wait.
install_import_hook("undiffuse", "helpers.enforcement.enforce")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork their own process come first: torch refuses to train in a fork of one in which autograd's
    threads have been started, and which tests start them, and in which process, changes from run to run."""
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Skipped tests are a letter among dots: that pages were not looked at is said aloud."""
    if find_browser() is None:
        terminalreporter.section("NO BROWSER", red=True, bold=True)
        terminalreporter.line(
            f"The pages were not opened: none of {', '.join(NAMES)} is installed. Install Debian's chromium, or name "
            "one in UNDIFFUSE_CHROMIUM."
        )


@pytest.fixture(scope="session", autouse=True)
def quick_previews() -> Iterator[None]:
    """Previews take two steps instead of twelve: hundreds of tests train, and few look at what a preview shows."""
    from undiffuse.training import previews

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(previews, "STEPS", 2)
        yield


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def notices(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The package's notices: `notices.messages`."""
    caplog.set_level("INFO", logger="undiffuse")
    return caplog


@pytest.fixture
def real_data() -> Path:
    """The folder of real images named by UNDIFFUSE_DATA; skips without."""
    folder = os.environ.get("UNDIFFUSE_DATA")
    if not folder:
        pytest.skip("UNDIFFUSE_DATA names no folder with real data")
    return Path(folder)


@pytest.fixture
def small_network() -> UNetConfig:
    """Every part of the U-Net once, in 80,000 parameters, for 8x8 images in gray with three classes."""
    from undiffuse.networks.unet import UNetConfig

    return UNetConfig(
        size=(8, 8),
        image_channels=1,
        classes=3,
        channels=16,
        multipliers=(1, 2),
        blocks=1,
        attention_resolutions=(4,),
        heads=2,
        groups=4,
        dropout=0.0,
    )


@pytest.fixture
def randomized() -> Callable[[nn.Module], nn.Module]:
    """Gives what starts at zero small random numbers: a zeroed layer hides whatever lies before it."""
    import torch

    def fill(network: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1, generator=generator)
        return network

    return fill


@pytest.fixture
def random_unet(randomized: Callable[[nn.Module], nn.Module]) -> Callable[[UNetConfig], UNet]:
    """A U-Net of a config, always the same, none of whose parameters is all zero; without dropout."""
    import torch

    from undiffuse.networks.unet import UNet

    def make(config: UNetConfig) -> UNet:
        torch.manual_seed(0)
        network = UNet(config)
        randomized(network)
        return network.eval()

    return make


@pytest.fixture
def preset_config(tmp_path: Path) -> Callable[[str], Config]:
    """The config of a preset for color images of 32x32 in three classes, with no images behind it."""
    from undiffuse.data.store import DataConfig, Store
    from undiffuse.presets import configure

    store = Store(
        folder=tmp_path,
        name="images",
        split="all",
        content="0123456789abcdef",
        total_images=300,
        size=(32, 32),
        channels=3,
        class_names=("cats", "dogs", "snow"),
        skipped=(),
    )
    return lambda preset: configure(preset, store, DataConfig(data="images", size=(32, 32), channels=3), seed=7)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights for Inception."""
    from helpers.features import save_random_inception

    return save_random_inception(tmp_path_factory.mktemp("weights") / "random-inception.pth")


@pytest.fixture(scope="session")
def inception(inception_weights: Path) -> FeatureNetwork:
    """Inception with random weights."""
    import torch

    from undiffuse.features.networks import load_features

    return load_features("inception", inception_weights, torch.device("cpu"))
