"""undiffuse import"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from undiffuse.commands import values
from undiffuse.commands.options import unless_given
from undiffuse.utils.terminal import console


def import_run(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    out: Annotated[str | None, unless_given("runs/NAME of the source")] = None,
    size: Annotated[str | None, unless_given("32 for weights without a config")] = None,
    heads: Annotated[int | None, unless_given("4 for weights without a config")] = None,
    schedule: Annotated[Literal["linear", "cosine"] | None, unless_given("cosine, as above")] = None,
    num_timesteps: Annotated[int | None, unless_given("4000, as above")] = None,
    parametrization: Annotated[Literal["eps", "x0"] | None, unless_given("eps, as above")] = None,
    variance: Annotated[Literal["small", "large"] | None, unless_given("learned if it is, else large")] = None,
    raw_timesteps: bool = False,
) -> None:
    """Make a run of a model that was trained elsewhere, to sample from, evaluate and export.

    From diffusers: undiffuse import google/ddpm-cifar10-32, or a folder that save_pretrained wrote.

    From Improved DDPM: undiffuse import cifar10_uncond_50M_500K.pt. Such weights do not say what the options below do;
    the defaults are its CIFAR-10 models'.

    Args:
        source: A folder of diffusers, a file of improved-diffusion's weights, or owner/name on the Hugging Face Hub.
        out: Run folder.
        size: FeatureSet of the images in pixels, or height x width as in 48x64.
        heads: Attention heads.
        schedule: Of the noise levels.
        num_timesteps: T, the number of noise levels.
        parametrization: What the network predicts: the noise, or the image.
        variance: Of a step, where it is not learned.
        raw_timesteps: The weights were trained with --rescale_timesteps False.
    """
    sides = values.size(size) if size else None
    for option, value in (("--heads", heads), ("--chain-length", num_timesteps)):
        if value is not None and value < 1:
            raise ValueError(f"{option} {value} is too few: take at least 1.")
    place = Path(source).expanduser().absolute()
    folder = Path(out).expanduser() if out else Path("runs") / (place.stem if place.is_file() else place.name)

    from undiffuse.interop.imported import check_new, describe, save_run
    from undiffuse.interop.sources import Overrides, find_model

    check_new(folder)
    found = find_model(
        source, Overrides(sides, heads, schedule, num_timesteps, parametrization, variance, raw_timesteps)
    )
    describe(found)
    run = save_run(found, folder)
    console.print(f"run      {run.folder.absolute()}")
    console.print(f"  images   undiffuse sample {run.folder}")
