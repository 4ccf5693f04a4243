"""Improved DDPM's weights: the original network's recorded outputs, and every kind of weights that do not fit."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop.imported import ImportedModel, config_of
from undiffuse.interop.openai import from_openai
from undiffuse.interop.weights import read_tensors
from undiffuse.networks.unet import UNet

ORACLES = Path(os.environ.get("UNDIFFUSE_ORACLES", Path(__file__).parents[1] / "oracles")).absolute()
RECORDED = sorted(ORACLES.glob("openai_unet_*.safetensors"))
SETTINGS = {
    *("in_channels", "model_channels", "num_res_blocks", "num_heads", "use_scale_shift_norm", "num_classes"),
    *("out_channels", "attention_resolutions", "channel_mult"),
}
WHERE = Path("weights.pt")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Of a conditional network for 16x16 images with a learned variance."""
    return read_tensors(RECORDED[0])


def read(weights: dict[str, Tensor], size: tuple[int, int] = (16, 16), heads: int = 4) -> dict[str, Tensor]:
    return from_openai(weights, size, heads, 1.0, WHERE)[2]


def test_there_are_recordings() -> None:
    assert RECORDED


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_output_is_the_original_networks(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    recording = np.load(file.with_suffix(".npz"))
    assert set(config) == SETTINGS
    assert set(recording) == {"x", "timesteps", "labels", "output"}

    size = recording["x"].shape[2:]
    network, learned_variance, tensors = from_openai(read_tensors(file), size, config["num_heads"], 1.0, file)
    assert network.image_channels == config["in_channels"]
    assert network.channels == config["model_channels"]
    assert network.multipliers == tuple(config["channel_mult"])
    assert network.blocks == config["num_res_blocks"]
    assert network.classes == (config["num_classes"] or 0)
    assert network.scale_shift_norm == config["use_scale_shift_norm"]
    # Theirs counts halvings of the image; ours counts pixels.
    assert network.attention_resolutions == tuple(max(size) // halved for halved in config["attention_resolutions"])
    assert learned_variance == (config["out_channels"] == 2 * config["in_channels"])

    unet = UNet(network, learned_variance).eval()
    unet.load_state_dict(tensors)
    labels = torch.from_numpy(recording["labels"]) if network.classes else None
    with torch.no_grad():
        output = unet(torch.from_numpy(recording["x"]), torch.from_numpy(recording["timesteps"]), labels)
    torch.testing.assert_close(output, torch.from_numpy(recording["output"]), rtol=0, atol=2e-5)


def test_the_row_for_no_label_is_zero(weights: dict[str, Tensor]) -> None:
    table = read(weights)["embed_label.weight"]
    assert torch.equal(table[:-1], weights["label_emb.weight"])
    assert not table[-1].any()


def test_an_imported_network_is_trained_further_as_it_was(weights: dict[str, Tensor]) -> None:
    """Weights do not tell of dropout: in that program it is 0 unless it is asked for."""
    assert from_openai(weights, (16, 16), 4, 1.0, WHERE)[0].dropout == 0


def test_attention_follows_the_longer_side(weights: dict[str, Tensor]) -> None:
    network, _, _ = from_openai(weights, (16, 32), 4, 0.25, WHERE)
    assert network.attention_resolutions == (16, 8)
    assert network.time_scale == 0.25


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {n: t for n, t in weights.items() if n != name}


def changed(name: str, *shape: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: weights | {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("middle_block.1.qkv.bias"), "has no weights middle_block.1.qkv.bias: it is damaged or incomplete"),
        (
            lambda weights: {name: tensor for name, tensor in weights.items() if not name.startswith("out.0.")},
            "has no weights out.0.weight and 1 more: it is damaged or incomplete",
        ),
        (without("out.2.weight"), "out.2.weight is missing or has a wrong shape"),
        (changed("extra.weight", 3), 'has weights "extra.weight", which undiffuse'),
        (
            changed("time_embed.0.weight", 128, 64),
            r"time_embed.0.weight .* \(128, 64\) instead of \(128, 32\)",
        ),
        (changed("input_blocks.0.0.weight", 32), "input_blocks.0.0.weight is missing or has a wrong shape"),
        (changed("input_blocks.0.0.weight", 0, 3, 3, 3), "holds a network without channels: it is damaged"),
        (changed("out.2.weight", 5, 32, 3, 3), "returns 5 channels for 3"),
        (changed("input_blocks.6.0.op.weight", 64, 64, 3, 3), "has 6 input blocks on 4 levels"),
        (changed("input_blocks.5.0.out_layers.3.weight", 16, 16, 3, 3), "multipliers.2 0"),
        (changed("input_blocks.7.0.in_layers.0.weight", 3), "has 6 input blocks on 3 levels"),
        (changed("label_emb.weight", 3), "label_emb.weight is missing or has a wrong shape"),
        (changed("input_blocks.1.0.emb_layers.1.weight", 32, 128), "input_blocks.1.0.emb_layers.1.bias has the shape"),
        (changed("input_blocks.99999999999999999999.0.op.weight", 1), "input blocks on 4 levels"),
    ],
)
def test_weights_of_another_network_are_refused(
    weights: dict[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        read(change(weights))
    assert str(WHERE.absolute()) in str(refusal.value)


def test_a_superresolution_network_of_six_channels_is_refused(weights: dict[str, Tensor]) -> None:
    doubled = weights["input_blocks.0.0.weight"].repeat(1, 2, 1, 1)
    network, learned_variance, tensors = from_openai(
        weights | {"input_blocks.0.0.weight": doubled}, (16, 16), 4, 1.0, WHERE
    )
    assert not learned_variance
    model = ImportedModel("weights.pt", network, DiffusionConfig(), SamplingConfig(), tensors, (), False)
    with pytest.raises(ValueError, match=r"weights.pt makes images that undiffuse does not support: .*6"):
        config_of(model)


@pytest.mark.parametrize(
    ("size", "heads", "message"),
    [((18, 18), 4, "size 18x18 does not fit"), ((16, 16), 5, "5 heads"), ((16, 16), 0, "heads 0")],
)
def test_a_wrong_size_or_number_of_heads_is_refused(
    weights: dict[str, Tensor], size: tuple[int, int], heads: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(weights, size, heads)
