"""undiffuse export"""

from typing import Annotated, Literal, cast

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.runs.find import find_run
from undiffuse.utils.terminal import console, loading

Format = Literal["diffusers", "onnx", "web"]

NEXT: dict[str, str] = {
    "diffusers": '  in Python   DiffusionPipeline.from_pretrained("{}")',
    "onnx": '  in Python   onnxruntime.InferenceSession("{}")',
    "web": "  to look at  python -m http.server --directory {}, and http://localhost:8000 in a browser",
}


def export(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    to: Annotated[tuple[str, str], tyro.conf.arg(metavar="{diffusers,onnx,web} TARGET")],
    label: Annotated[str | None, unless_given("the model keeps its classes")] = None,
    weights: Literal["ema", "network", "average"] = "ema",
) -> None:
    """Write a trained model for other programs to open.

    undiffuse export RUN --to diffusers DIR, and then in Python: DiffusionPipeline.from_pretrained("DIR")

    undiffuse export RUN --to onnx FILE: the denoiser D(x, sigma, label) for any program that reads ONNX

    undiffuse export RUN --to web DIR: a page that runs the model in the visitor's browser, for any static host

    Args:
        run: A run folder, its name under runs/, or a model that comes with undiffuse, such as digits.
        to: The format, and the folder or file to create.
        label: For diffusers, always make images of this class, by name or index, or none: a DDPMPipeline takes no
            class.
        weights: The EMA of the weights, or the weights in training; average is the old name of ema.
    """
    find_run(run)
    format, target = to
    if format not in NEXT:
        raise ValueError(f"--to {format} is not a format: choose {', '.join(NEXT)}.")

    with loading():
        from undiffuse.api import exchange as api

    api.export(run, cast(Format, format), target, label=label, weights=weights)
    console.print(NEXT[format].format(target), markup=False, soft_wrap=True)
