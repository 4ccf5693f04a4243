"""undiffuse import"""

from typing import Annotated, Literal

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.utils.parsing import parse_size
from undiffuse.utils.terminal import console, loading


def import_run(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    out: Annotated[str | None, unless_given("runs/NAME of the source")] = None,
    size: Annotated[str | None, unless_given("32 for weights without a config")] = None,
    heads: Annotated[int | None, unless_given("4 for weights without a config")] = None,
    schedule: Annotated[Literal["linear", "cosine"] | None, unless_given("cosine, as above")] = None,
    num_timesteps: Annotated[
        int | None, tyro.conf.arg(aliases=["--chain-length"], help_behavior_hint="(default: 4000, as above)")
    ] = None,
    parametrization: Annotated[Literal["eps", "x0"] | None, unless_given("eps, as above")] = None,
    variance: Annotated[Literal["small", "large"] | None, unless_given("learned if it is, else large")] = None,
    raw_timesteps: bool = False,
) -> None:
    """Turn a model that was trained elsewhere into a run, to sample from, evaluate and export.

    From diffusers: undiffuse import google/ddpm-cifar10-32, or a folder that save_pretrained wrote.

    From Improved DDPM: undiffuse import cifar10_uncond_50M_500K.pt. Such a file does not record what the options
    below set; the defaults are those of its CIFAR-10 models.

    Args:
        source: A diffusers folder, a file of improved-diffusion's weights, or owner/name on the Hugging Face Hub.
        out: Run folder.
        size: Height and width of the images in pixels, or height x width as in 48x64.
        heads: Number of attention heads.
        schedule: Noise schedule.
        num_timesteps: T, the number of noise levels.
        parametrization: What the network predicts: the noise, or the image.
        variance: Variance of a sampling step, where it is not learned.
        raw_timesteps: The weights were trained with --rescale_timesteps False.
    """
    image_size = parse_size(size) if size is not None else None

    with loading():
        from undiffuse import api

    run = api.import_model(
        source,
        out=out,
        size=image_size,
        heads=heads,
        schedule=schedule,
        num_timesteps=num_timesteps,
        parametrization=parametrization,
        variance=variance,
        raw_timesteps=raw_timesteps,
    )
    console.print(f"run      {run.folder.absolute()}")
    console.print(f"  images   undiffuse sample {run.folder}")
