"""ONNX: the whole denoiser D(x, sigma, label) -> x0 in one file that other programs run.

The preconditioning is inside, so that every parametrization goes out and a sampler needs nothing else.
"""

import json
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from undiffuse.config import Config
from undiffuse.diffusion.denoiser import predictor, spread
from undiffuse.diffusion.parametrization import Coefficients, Parametrization
from undiffuse.sampling.model import Model
from undiffuse.utils.conditions import NO_LABEL
from undiffuse.utils.randomness import ImageRandomness

OPSET = 18
"""The version of ONNX's operators that torch's exporter writes without converting them."""

MAX_BYTES = 2**31
"""Of an ONNX file, because protobuf has no longer messages."""

TOLERANCE = 1e-4
"""Largest difference of x0 from torch's, for pixels in [-1, 1]; where c_out is above 1, c_out times as much."""

LEVELS = 5
"""Noise levels at which the file is compared with torch, over the whole range of sampling."""


def to_onnx(model: Model, metadata: Mapping[str, str]) -> bytes:
    """The model's denoiser as an ONNX file: inputs x, sigma and label for any batch, output x0, checked against torch.

    Weights that bfloat16 holds exactly, as those of the shipped models, are stored in it, which halves the file; the
    arithmetic is float32 in any case.

    Raises:
        ValueError: a package is missing, the network cannot be exported, or the result differs from torch's.
    """
    if 4 * sum(weights.numel() for weights in network_of(model).parameters()) > MAX_BYTES:
        raise ValueError(f"An ONNX file holds at most {MAX_BYTES // 2**30} GiB, and this network has more weights.")
    content = _exported(model, metadata)
    difference = largest_difference(content, model)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"The exported model differs from torch's by {difference:.2g}, more than {TOLERANCE:g}, so nothing was "
            "written: update torch, onnxscript and onnxruntime, and export again."
        )
    return content


def describe(config: Config, name: str, images: int, weights: str, card: str) -> dict[str, str]:
    """What the file says of the model, in metadata_props."""
    low, high = config.diffusion.sigma_range()
    height, width = config.network.size
    values = {
        "name": name,
        "images_seen": images,
        "weights": weights,
        "channels": config.network.image_channels,
        "height": height,
        "width": width,
        "value_range": [-1, 1],
        "sigma_min": low,
        "sigma_max": high,
        "class_names": config.class_names,
        "no_label": NO_LABEL if config.class_names and config.training.label_dropout > 0 else None,
        "parametrization": config.diffusion.parametrization,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()} | (
        {"model_card": card} if card else {}
    )


def largest_difference(content: bytes, model: Model) -> float:
    """How far x0 of the ONNX file is from torch's, over noise levels, labels and both a batch and one image.

    Where c_out is above 1 it multiplies the network's rounding errors too, so that they are divided by it.
    """
    runtime = _package("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    labels = sorted({NO_LABEL, 0, len(model.class_names) - 1}) if model.class_names else [NO_LABEL]
    sigma = model.diffusion.log_snr_sigmas(LEVELS)[:-1].float().repeat_interleave(len(labels))
    label = torch.tensor(labels * LEVELS)
    x = torch.sqrt(1 + spread(sigma) ** 2) * ImageRandomness("onnx", 0, range(len(sigma))).normal(*model.shape)
    with torch.no_grad():
        expected = model.predict(x.double(), sigma.double(), label if model.class_names else None).x0
    amplified = model.diffusion.make_parametrization()(sigma.double()).c_out.abs().clamp(min=1)

    def difference(chosen: slice) -> float:
        inputs = {"x": x[chosen].numpy(), "sigma": sigma[chosen].numpy(), "label": label[chosen].numpy()}
        found = torch.from_numpy(session.run(["x0"], inputs)[0])
        return float(((found - expected[chosen]).abs() / spread(amplified[chosen])).max())

    return max(difference(slice(None)), difference(slice(1)))


def network_of(model: Model) -> nn.Module:
    """The model's network, which one that was loaded from a run has."""
    assert model.network is not None
    return model.network


class _Denoiser(nn.Module):
    """D(x, sigma, label), with coefficients that are computed in float64 and applied in float32."""

    def __init__(self, model: Model):
        super().__init__()
        self.network = network_of(model)
        self.predict = predictor(self.network, _in_float64(model.diffusion.make_parametrization()))
        self.labeled = bool(model.class_names)

    def forward(
        self, x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], label: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        return self.predict(x, sigma, label if self.labeled else None).x0


def _in_float64(parametrization: Parametrization) -> Parametrization:
    # Neighbors on a discrete schedule are closer in ln sigma than float32 can tell apart well.
    return lambda sigma: Coefficients(*(each.float() for each in parametrization(sigma.double())))


def _exported(model: Model, metadata: Mapping[str, str]) -> bytes:
    ir, onnxscript = _package("onnx_ir"), _package("onnxscript")
    _package("onnx")
    batch = torch.export.Dim("batch", min=1, max=2**16)
    example = (torch.randn(2, *model.shape), torch.ones(2), torch.zeros(2, dtype=torch.long))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # They are for those who write exporters.
        try:
            program = torch.onnx.export(
                _Denoiser(model).eval(),
                example,
                input_names=["x", "sigma", "label"],
                output_names=["x0"],
                dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
                custom_translation_table={torch.ops.aten.searchsorted.Tensor: _searchsorted(onnxscript.opset18)},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ValueError(
                f"torch cannot export {type(model.config.network).__name__} to ONNX ({_first_line(error)}): "
                "--debug shows where."
            ) from error
    assert program is not None
    exported = program.model
    _clear_notes(exported, ir)
    _halve_exact_weights(exported, ir)
    exported.metadata_props.update(metadata)
    exported.producer_name, exported.producer_version = "undiffuse", ""
    return ir.to_proto(exported).SerializeToString()


def _clear_notes(exported: Any, ir: Any) -> None:
    """Removes what the exporter noted, with the paths of this machine."""
    ir.passes.common.ClearMetadataAndDocStringPass()(exported)
    for value in (*exported.graph.inputs, *exported.graph.outputs, *exported.graph.initializers.values()):
        value.metadata_props.clear()


def _searchsorted(op: Any) -> Any:
    """torch.searchsorted in ONNX's operators, which have none: how many of the rising values lie below each."""

    def translate(rising: Any, values: Any, **options: Any) -> Any:
        below = op.Less(rising, op.Unsqueeze(values, [1]))
        return op.ReduceSum(op.Cast(below, to=7), [1], keepdims=0)  # 7: int64.

    return translate


def _halve_exact_weights(exported: Any, ir: Any) -> None:
    """Stores float32 weights that bfloat16 holds exactly in it, each with a cast back to float32."""
    graph = exported.graph
    for name, value in list(graph.initializers.items()):
        weights = value.const_value.numpy()
        exact = weights.dtype == np.float32 and not (weights.view(np.uint32) & 0xFFFF).any()
        if not exact or weights.size < 64:
            continue
        halved = torch.from_numpy(weights.copy()).bfloat16().view(torch.int16).numpy()
        tensor = ir.Tensor(halved.view(np.uint16), dtype=ir.DataType.BFLOAT16, name=f"{name}.bfloat16")
        stored = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=value.shape, const_value=tensor)
        cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT})
        graph.insert_before(graph[0], cast)
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        cast.outputs[0].type, cast.outputs[0].shape = value.type, value.shape
        del graph.initializers[name]
        graph.register_initializer(stored)
        cast.outputs[0].name = name


def check_packages() -> None:
    """Raises ValueError where a package of the extra onnx is missing, before any other work."""
    for name in ("onnx", "onnx_ir", "onnxscript", "onnxruntime"):
        _package(name)


def _package(name: str) -> Any:
    try:
        return import_module(name)  # Here, because it is of an optional extra.
    except ImportError as error:
        raise ValueError(f"ONNX needs the package {name}: pip install 'undiffuse[onnx]'.") from error


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n")[0] or type(error).__name__
