"""diffusers' UNet2DModel and ours: the same output both ways, and what one of them lacks is refused by name."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.foreign import SETTINGS, UNet2DModel, random_unet2d
from torch import Tensor

from undiffuse.interop.unet2d import UNet2DSettings, network_of, settings_of
from undiffuse.interop.unet2d_weights import from_unet2d, to_unet2d, with_label
from undiffuse.networks.unet import UNet, UNetConfig

WHERE = Path("config.json")
ATTENDING = {
    "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"num_class_embeds": 5},
    "scale_shift": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8},
    "asymmetric": {"downsample_padding": 0, "norm_eps": 1e-2, "freq_shift": 1, "flip_sin_to_cos": False},
    "one head": {"attention_head_dim": None},
    "learned": {"in_channels": 3, "out_channels": 6},
    "wide": {"sample_size": (8, 16), "act_fn": "swish", "dropout": 0.5},
    "deep": {"block_out_channels": (16, 32, 16), "layers_per_block": 2, "sample_size": (16, 8), **ATTENDING},
}


def settings(**changes: Any) -> UNet2DSettings:
    return UNet2DSettings(**{**SETTINGS, **changes})


def network(**changes: Any) -> UNetConfig:
    return network_of(settings(**changes), size_of(changes), WHERE)


def size_of(changes: dict[str, Any]) -> tuple[int, int]:
    size = changes.get("sample_size", 8)
    return size if isinstance(size, tuple) else (size, size)


def outputs(model: UNet2DModel | UNet, classes: int, size: tuple[int, int], channels: int) -> Tensor:
    """The model's output at several noise levels and for several classes."""
    x = torch.randn(3, channels, *size, generator=torch.Generator().manual_seed(1))
    time, label = torch.tensor([0.0, 7.0, 999.0]), torch.tensor([0, 3, 4]) if classes else None
    with torch.no_grad():
        if isinstance(model, UNet2DModel):
            return model(x, time, class_labels=label).sample
        return model(x, time, label)


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_is_the_same_both_ways(variant: str) -> None:
    changes = VARIANTS[variant]
    theirs = random_unet2d(**changes)
    config_file = settings(**changes)
    config = network(**changes)
    learned_variance = config_file.out_channels == 2 * config_file.in_channels
    shape = config.classes, config.size, config.image_channels
    expected = outputs(theirs, *shape)

    ours = UNet(config, learned_variance).eval()
    ours.load_state_dict(from_unet2d(theirs.state_dict(), config, learned_variance, config_file.flip_sin_to_cos, WHERE))
    torch.testing.assert_close(outputs(ours, *shape), expected, rtol=1e-5, atol=1e-5)

    again = UNet2DModel(**asdict(settings_of(config, learned_variance, config.classes, WHERE))).eval()
    again.load_state_dict(to_unet2d(ours.state_dict(), config, config.classes))
    torch.testing.assert_close(outputs(again, *shape), expected, rtol=1e-5, atol=1e-5)


def test_settings_and_defaults_are_the_librarys() -> None:
    theirs = inspect.signature(UNet2DModel.__init__).parameters
    ours = {field.name: field.default for field in fields(UNet2DSettings)}
    for name in theirs.keys() - {"self"}:
        assert ours[name] == theirs[name].default, name
    config = network_of(UNet2DSettings(), (32, 32), WHERE)  # All of it left out.
    assert (config.channels, config.multipliers, config.head_channels) == (224, (1, 2, 3, 4), 8)


def test_old_names_in_attention_are_read() -> None:
    weights, config = random_unet2d().state_dict(), network()
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    aged = {}
    for name, tensor in weights.items():
        for new, before in old.items():
            name = name.replace(new, before)
        aged[name] = tensor
    assert aged.keys() != weights.keys()
    read, expected = (from_unet2d(tensors, config, False, True, WHERE) for tensors in (aged, weights))
    assert all(torch.equal(read[name], expected[name]) for name in expected)


def test_dropout_is_kept_for_training() -> None:
    assert network(dropout=0.5).dropout == 0.5
    assert settings_of(network(dropout=0.5), False, 0, WHERE).dropout == 0.5


@pytest.mark.parametrize("label", [0, 4, -1])
def test_a_built_in_label_is_always_used(label: int, random_unet: Callable, small_network: UNetConfig) -> None:
    config = replace(small_network, classes=5)
    ours = random_unet(config)
    plain = UNet(replace(config, classes=0)).eval()
    plain.load_state_dict(with_label(ours.state_dict(), label))
    x, time = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 900.0])
    with torch.no_grad():
        torch.testing.assert_close(plain(x, time), ours(x, time, torch.tensor([label, label])))
        assert not torch.allclose(plain(x, time), ours(x, time, torch.tensor([1, 1])), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"center_input_sample": True}, "center_input_sample True"),
        ({"time_embedding_type": "fourier"}, 'time_embedding_type "fourier"'),
        ({"time_embedding_type": "learned"}, 'time_embedding_type "learned"'),
        ({"time_embedding_dim": 128}, "time_embedding_dim 128"),
        ({"mid_block_type": None}, "mid_block_type None"),
        ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor 1.4"),
        ({"downsample_padding": 2}, "downsample_padding 2"),
        ({"downsample_type": "resnet"}, 'downsample_type "resnet"'),
        ({"upsample_type": "resnet"}, 'upsample_type "resnet"'),
        ({"act_fn": "gelu"}, 'act_fn "gelu"'),
        ({"add_attention": False}, "add_attention False"),
        ({"resnet_time_scale_shift": "ada_group"}, 'resnet_time_scale_shift "ada_group"'),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups None"),
        ({"attn_norm_num_groups": 4}, "attn_norm_num_groups 4"),
        ({"class_embed_type": "timestep"}, 'class_embed_type "timestep"'),
        ({"num_class_embeds": 0}, "num_class_embeds 0"),
        ({"out_channels": 3}, "out_channels 3"),
        ({"block_out_channels": (16, 24)}, r"block_out_channels \(16, 24\)"),
        ({"block_out_channels": (0, 0)}, r"block_out_channels \(0, 0\)"),
        ({"block_out_channels": (0, 16)}, r"block_out_channels \(0, 16\)"),
        ({"block_out_channels": (-16, 32)}, r"block_out_channels \(-16, 32\)"),
        ({"block_out_channels": ()}, r"block_out_channels \(\)"),
        ({"block_out_channels": (16, 32, 32)}, "the same levels on the way up as down"),
        ({"down_block_types": ("DownBlock2D", "SkipDownBlock2D")}, 'down_block_types "SkipDownBlock2D"'),
        ({"up_block_types": ("AttnUpBlock2D", "CrossAttnUpBlock2D")}, 'up_block_types "CrossAttnUpBlock2D"'),
        ({"up_block_types": ("UpBlock2D", "AttnUpBlock2D")}, "the same levels on the way up as down"),
        ({"attention_head_dim": 64}, "heads of 64"),
        ({"norm_num_groups": 5}, "5 groups"),
        ({"norm_eps": 0.0}, "norm_eps 0.0"),
        ({"norm_eps": float("nan")}, "norm_eps nan"),
        ({"dropout": 1.5}, "dropout 1.5"),
        ({"layers_per_block": 0}, "blocks 0"),
        ({"sample_size": 9}, "size 9x9"),
        ({"freq_shift": 8}, "frequency_shift 8"),
    ],
)
def test_a_setting_that_ours_lacks_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        network(**changes)
    assert str(WHERE.absolute()) in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 2}, "network.patch 2"),
        ({"time_scale": 0.25}, "network.time_scale 0.25"),
        ({"resampling": "residual"}, "network.resampling residual"),
        ({"resampling": "none"}, "network.resampling none"),
        ({"skip_scale": 0.5}, "network.skip_scale 0.5"),
        ({"sparse_up_attention": True}, "network.sparse_up_attention True"),
        ({"input_multiplier": 2}, "network.input_multiplier 2"),
        ({"heads": 2, "attention_resolutions": (8, 4)}, "network.heads 2 on levels of different widths"),
    ],
)
def test_a_setting_that_theirs_lacks_is_refused_by_name(
    changes: dict[str, Any], message: str, small_network: UNetConfig
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        settings_of(replace(small_network, **changes), False, 0, WHERE)
    assert str(WHERE.absolute()) in str(refusal.value)


def test_heads_become_channels_per_head_where_levels_agree(small_network: UNetConfig) -> None:
    assert settings_of(small_network, False, 0, WHERE).attention_head_dim == 16  # 32 channels, two heads.
    everywhere = replace(small_network, attention_resolutions=(8, 4), head_channels=8)
    assert settings_of(everywhere, False, 0, WHERE).attention_head_dim == 8
    one_head = replace(small_network, attention_resolutions=(8, 4), heads=1)
    assert settings_of(one_head, False, 0, WHERE).attention_head_dim is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("mid_block.attentions.0.to_k.bias"), "has no weights mid_block.attentions.0.to_k.bias"),
        (lambda w: w.pop("conv_in.weight"), "has no weights conv_in.weight"),
        (lambda w: w.update({"extra.weight": torch.ones(2)}), 'has weights "extra.weight", which undiffuse'),
        (lambda w: w.update({"conv_in.weight": torch.ones(16, 3, 3, 3)}), "conv_in.weight has the shape"),
        (lambda w: w.update({"mid_block.attentions.0.to_q.weight": torch.ones(3, 3)}), "to_q.weight, to_k and to_v"),
        (lambda w: w.update({"mid_block.attentions.0.to_q.weight": torch.tensor(1.0)}), "to_q.weight, to_k and to_v"),
        (lambda w: w.update({"class_embedding.weight": torch.ones(3)}), "class_embedding.weight has the shape"),
        (lambda w: w.update({"class_embedding.weight": torch.ones(4, 64)}), "class_embedding.weight has the shape"),
        (lambda w: w.clear(), "too few weights"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(
    change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    weights = dict(random_unet2d(num_class_embeds=5).state_dict())
    change(weights)
    with pytest.raises(ValueError, match=message) as refusal:
        from_unet2d(weights, network(num_class_embeds=5), False, True, WHERE)
    assert str(WHERE.absolute()) in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_per_block": 10**9},
        {"block_out_channels": (16, 16 * 10**17)},
        {"num_class_embeds": 10**18},
        {"in_channels": 10**18, "out_channels": 10**18},
    ],
)
def test_a_gigantic_config_is_refused_before_it_is_built(changes: dict[str, Any]) -> None:
    weights = dict(random_unet2d(num_class_embeds=5).state_dict())
    with pytest.raises(ValueError, match=r"too few weights|less than or equal to 1024"):
        from_unet2d(weights, network(**changes), False, True, WHERE)


def test_ddpm_on_the_hub_is_ho_et_als_network() -> None:
    # config.json of google/ddpm-cifar10-32.
    published = UNet2DSettings(
        act_fn="silu",
        attention_head_dim=None,
        block_out_channels=(128, 256, 256, 256),
        center_input_sample=False,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        in_channels=3,
        layers_per_block=2,
        mid_block_scale_factor=1,
        norm_eps=1e-6,
        norm_num_groups=32,
        out_channels=3,
        sample_size=32,
        time_embedding_type="positional",
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    expected = UNetConfig(dropout=0.0, norm_eps=1e-6, frequency_shift=1, asymmetric_downsampling=True)
    assert network_of(published, (32, 32), WHERE) == expected
    with torch.device("meta"):
        theirs, ours = UNet2DModel(**asdict(published)), UNet(expected)
    converted = from_unet2d(theirs.state_dict(), expected, False, False, WHERE)
    assert {name: t.shape for name, t in converted.items()} == {name: t.shape for name, t in ours.state_dict().items()}
    assert sum(t.numel() for t in converted.values()) == 35_746_307
