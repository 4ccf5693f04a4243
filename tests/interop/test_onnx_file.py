"""ONNX files: D(x, sigma, label) of any parametrization, for any batch, as torch has it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.onnx_networks import SmallConfig
from torch import Tensor

from undiffuse.config import Config
from undiffuse.diffusion.parametrization import PARAMETRIZATIONS
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop import onnx_file
from undiffuse.interop.onnx_file import TOLERANCE, check_packages, describe, largest_difference, to_onnx
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.sampling.model import Model, model_of

EXTRA = "pip install 'undiffuse[onnx]'"
onnx = pytest.importorskip("onnx", reason=EXTRA)
onnxruntime = pytest.importorskip("onnxruntime", reason=EXTRA)
pytest.importorskip("onnxscript", reason=EXTRA)

CPU = torch.device("cpu")
DISCRETE = {"eps", "x0", "v"}

MakeModel = Callable[..., Model]


@pytest.fixture
def make_model(preset_config: Callable[[str], Config], randomized: Callable) -> MakeModel:
    def make(network: NetworkConfig, **diffusion: Any) -> Model:
        names = ("cats", "dogs", "snow")[: network.classes]
        config = replace(
            preset_config("cifar10-edm"), network=network, class_names=names, diffusion=DiffusionConfig(**diffusion)
        )
        torch.manual_seed(0)
        return model_of(randomized(config.build_network()).eval().requires_grad_(False), config, CPU)

    return make


def discrete(parametrization: str) -> dict[str, str]:
    sampled = "discrete_uniform" if parametrization in DISCRETE else "log_normal"
    return {"parametrization": parametrization, "sigma_sampler": sampled}


def run(content: bytes, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(content)
    assert [each.name for each in session.get_inputs()] == ["x", "sigma", "label"]
    return torch.from_numpy(session.run(None, {"x": x.numpy(), "sigma": sigma.numpy(), "label": label.numpy()})[0])


# An export takes seconds, so one parametrization stands for all of them by default: the one with a discrete schedule.
@pytest.mark.parametrize(
    "parametrization",
    ["eps", *(pytest.param(name, marks=pytest.mark.slow) for name in PARAMETRIZATIONS if name != "eps")],
)
def test_every_parametrization_goes_out(parametrization: str, make_model: MakeModel) -> None:
    model = make_model(SmallConfig(size=(5, 4), image_channels=3, classes=2), **discrete(parametrization))
    bias = onnx_file.network_of(model).get_parameter("conv.bias").fill_(0.5)  # bfloat16 holds it exactly.
    content = to_onnx(model, {})
    sigma = torch.tensor([0.013, 0.5, 1.7, 9.0, 75.0])
    x = torch.sqrt(1 + sigma**2)[:, None, None, None] * torch.randn(5, 3, 5, 4)
    label = torch.tensor([1, -1, 0, 1, 0])
    for chosen in (slice(None), slice(1)):  # Any batch.
        found = run(content, x[chosen], sigma[chosen], label[chosen])
        expected = model.denoise(x[chosen], sigma[chosen], label[chosen])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert largest_difference(content, model) < 1e-5
    stored = {each.data_type for each in onnx.load_from_string(content).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 not in stored, "three numbers are not worth a cast"
    bias.add_(1e-3)
    assert largest_difference(content, model) > TOLERANCE


@pytest.mark.slow
def test_a_unet_of_a_cosine_schedule_with_learned_variance_goes_out(
    make_model: MakeModel, small_network: UNetConfig
) -> None:
    """sigma goes up to 2e4 and the indices lie close, which float32 alone would not tell apart."""
    model = make_model(
        small_network,
        parametrization="eps",
        sigma_sampler="discrete_uniform",
        objective="hybrid",
        schedule="cosine",
        num_timesteps=4000,
    )
    content = to_onnx(model, describe(model.config, "cats", 500, "ema", "# Cats"))
    assert b"site-packages" not in content
    assert b"forward" not in content
    found = onnx.load_from_string(content)
    onnx.checker.check_model(found, full_check=True)
    told = {each.key: each.value for each in found.metadata_props}
    assert json.loads(told["class_names"]) == ["cats", "dogs", "snow"]
    assert (told["name"], told["height"], told["parametrization"]) == ("cats", "8", "eps")
    assert (json.loads(told["value_range"]), float(told["sigma_max"])) == ([-1, 1], model.diffusion.sigma_range()[1])
    assert told["model_card"] == "# Cats"


def test_a_file_says_in_words_what_it_takes_and_gives(make_model: MakeModel) -> None:
    model = make_model(SmallConfig(size=(5, 4), image_channels=3, classes=2), **discrete("eps"))
    told = describe(model.config, "cats", 500, "ema", "# Cats")
    assert (told["name"], told["weights"], told["parametrization"], told["model_card"]) == (
        "cats",
        "ema",
        "eps",
        "# Cats",
    )
    numbers = {key: json.loads(told[key]) for key in ("channels", "height", "width", "images_seen", "value_range")}
    assert numbers == {"channels": 3, "height": 5, "width": 4, "images_seen": 500, "value_range": [-1, 1]}
    sigmas = json.loads(told["sigma_min"]), json.loads(told["sigma_max"])
    assert sigmas == model.diffusion.sigma_range()
    assert json.loads(told["class_names"]) == ["cats", "dogs"]
    for dropout, no_label in ((0.1, -1), (0.0, None)):  # Of labels: without it no row for "no label" was trained.
        config = replace(model.config, training=replace(model.config.training, label_dropout=dropout))
        assert json.loads(describe(config, "cats", 500, "ema", "")["no_label"]) == no_label
    assert "model_card" not in describe(model.config, "cats", 500, "ema", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"patch": 2, "attention_resolutions": (2,)},
        {"resampling": "residual", "scale_shift_norm": True, "skip_scale": 0.5**0.5, "sparse_up_attention": True},
        {"resampling": "none", "head_channels": 8, "classes": 0},
        {"asymmetric_downsampling": True, "frequency_shift": 1, "time_scale": 0.25, "size": (8, 12)},
    ],
)
def test_every_unet_goes_out(changes: dict[str, Any], make_model: MakeModel, small_network: UNetConfig) -> None:
    model = make_model(replace(small_network, **changes))
    assert largest_difference(to_onnx(model, {}), model) < 1e-5


@pytest.mark.slow
def test_weights_that_bfloat16_holds_take_half_the_space_and_stay_what_they_are(make_model: MakeModel) -> None:
    model = make_model(SmallConfig(size=(4, 4), image_channels=48))
    whole = to_onnx(model, {})
    network = onnx_file.network_of(model)
    network.load_state_dict({name: value.bfloat16().float() for name, value in network.state_dict().items()})
    halved = to_onnx(model, {})
    assert len(halved) < 0.6 * len(whole)
    assert largest_difference(halved, model) < 1e-6


def test_a_file_that_differs_from_torch_is_not_written(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(SmallConfig(size=(4, 4), image_channels=1))
    monkeypatch.setattr(onnx_file, "_exported", lambda model, metadata: b"onnx")
    monkeypatch.setattr(onnx_file, "largest_difference", lambda content, model: float("nan"))
    with pytest.raises(ValueError, match=r"differs from torch's by .*, more than 0\.0001, so nothing was written"):
        to_onnx(model, {})


def test_a_network_that_onnx_has_no_words_for_is_refused(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(SmallConfig(size=(4, 4), image_channels=1))
    monkeypatch.setattr(
        type(model.network), "forward", lambda self, x, c_noise, label=None: self.conv(x) * float(x.sum())
    )
    with pytest.raises(ValueError, match="torch cannot export SmallConfig to ONNX"):
        to_onnx(model, {})


def test_without_the_packages_it_says_what_to_install(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(SmallConfig(size=(4, 4), image_channels=1))
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"ONNX needs the package onnxscript: pip install 'undiffuse\[onnx\]'"):
        to_onnx(model, {})
    with pytest.raises(ValueError, match="needs the package onnxscript"):
        check_packages()  # Before a page's runtime is downloaded.
