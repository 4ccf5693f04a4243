"""The table of feature networks, and custom networks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.features import image_set, random_pixels

from undiffuse.features import networks
from undiffuse.features.cache import features_of
from undiffuse.features.networks import FeatureNetwork, load_features
from undiffuse.features.table import FEATURES, feature_row, features_help, find_weights
from undiffuse.utils.world import World

CPU = torch.device("cpu")


def mean_color(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(dim=(2, 3))


@pytest.mark.parametrize("name", FEATURES)
def test_every_row_names_its_loader(name: str) -> None:
    assert callable(getattr(networks, FEATURES[name].loader))


def test_only_inception_has_an_fid_and_a_kid() -> None:
    assert [name for name, row in FEATURES.items() if row.distance == "FID"] == ["inception"]
    assert [name for name, row in FEATURES.items() if row.kernel == "KID"] == ["inception"]


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, undiffuse.features.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", FEATURES)
def test_help_and_docs_describe_every_row(name: str) -> None:
    row = FEATURES[name]
    assert f"{name} ({row.distance}, {row.kernel}): {row.about}" in features_help()
    lines = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text().splitlines()
    assert any(f"`{name}`" in line and row.distance in line and row.kernel in line for line in lines)


def test_unknown_features_are_answered_with_the_choices() -> None:
    with pytest.raises(ValueError, match="no features called clip: choose inception, efficientnet-lite0, dinov2, pix"):
        feature_row("clip")


def test_pixels_take_no_weights() -> None:
    assert find_weights("pixels") is None
    with pytest.raises(ValueError, match="--features pixels has no weights: leave out --weights"):
        load_features("pixels", "weights.pth", CPU)


def test_a_custom_network_needs_a_name_and_a_function() -> None:
    network = FeatureNetwork("mean-color", mean_color)
    assert (network.distance, network.kernel) == ("FD-mean-color", "KD-mean-color")
    pixels = random_pixels(7, seed=0)
    found = features_of(network, image_set(pixels), 3, World.alone(CPU))
    assert found.features == pytest.approx(pixels.mean(axis=(1, 2)), rel=1e-5)
    assert found.logits.shape == (7, 0)


def test_features_of_a_custom_network_are_not_cached() -> None:
    """Another function may have the same name."""
    images, world = image_set(random_pixels(7, seed=0)), World.alone(CPU)
    first = features_of(FeatureNetwork("mine", mean_color), images, 3, world).features.copy()
    again = features_of(FeatureNetwork("mine", lambda x: 2 * mean_color(x)), images, 3, world)
    assert not again.cached
    assert again.features == pytest.approx(2 * first)


def test_features_must_be_one_row_for_each_image() -> None:
    network = FeatureNetwork("flat", lambda images: images.float().flatten())
    with pytest.raises(ValueError, match=r"flat returns features of shape \(324,\) for 3 images: return one row"):
        features_of(network, image_set(random_pixels(3, seed=0)), 3, World.alone(CPU))


@pytest.mark.parametrize(
    ("name", "message"), [("inception", "is the name of another"), ("a/b", "is not a name for"), ("", "is not a name")]
)
def test_custom_networks_have_names_of_their_own(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureNetwork(name, mean_color)
