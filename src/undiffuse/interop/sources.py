"""Where a model comes from: a diffusers folder, a file of Improved DDPM's weights, or the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop.hub import download, is_hub_id
from undiffuse.interop.imported import ImportedModel
from undiffuse.interop.openai import from_openai, is_openai
from undiffuse.interop.pipelines import is_pipeline, read_pipeline
from undiffuse.interop.settings import reason, safe_text
from undiffuse.interop.weights import SUFFIXES, read_tensors

RESPACED_STEPS = 250
"""The number of steps in which Improved DDPM's own examples sample its models."""


@dataclass(frozen=True)
class Overrides:
    """What a weights file does not state. None: as in Improved DDPM's CIFAR-10 models."""

    size: tuple[int, int] | None = None
    heads: int | None = None
    schedule: Literal["linear", "cosine"] | None = None
    num_timesteps: int | None = None
    parametrization: Literal["eps", "x0"] | None = None
    variance: Literal["small", "large"] | None = None
    raw_timesteps: bool = False
    """Trained with --rescale_timesteps False."""


def read_model(source: str | Path, overrides: Overrides) -> ImportedModel:
    """The model at `source`: a diffusers folder, a file of Improved DDPM's weights, or an id on the Hub.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is damaged, undiffuse does not support it, or it states itself what `overrides` gives.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path, str(path.absolute()), overrides)
    if path.exists() or path.suffix in SUFFIXES or path.suffix == ".pkl":
        return _from_weights(path, overrides)
    if is_hub_id(str(source)):
        return _from_folder(download(str(source)), str(source), overrides)
    raise FileNotFoundError(f"There is nothing at {path.absolute()}: give a folder, a weights file, or owner/name.")


def _from_folder(folder: Path, origin: str, overrides: Overrides) -> ImportedModel:
    if not is_pipeline(folder):
        raise ValueError(
            f"{folder.absolute()} is not a diffusers model: it has no model_index.json or config.json. To import a "
            "weights file, give the file."
        )
    if overrides != Overrides(size=overrides.size):
        raise ValueError(
            f"{folder.absolute()} states itself how it was trained: leave out all options but --out and --size."
        )
    return read_pipeline(folder, origin, overrides.size)


def _from_weights(file: Path, overrides: Overrides) -> ImportedModel:
    tensors = read_tensors(file)
    if "conv_in.weight" in tensors:
        raise ValueError(
            f"{file.absolute()} holds weights of diffusers, which need their config.json: give the folder with both."
        )
    if not is_openai(tensors):
        raise ValueError(
            f"{file.absolute()} holds weights of an unknown network ({safe_text(next(iter(tensors)))} and more): "
            "undiffuse reads those of improved-diffusion, and diffusers folders."
        )
    num_timesteps = 4000 if overrides.num_timesteps is None else overrides.num_timesteps
    time_scale = 1.0 if overrides.raw_timesteps else 1000 / max(num_timesteps, 1)
    heads = 4 if overrides.heads is None else overrides.heads
    network, learned_variance, renamed = from_openai(tensors, overrides.size or (32, 32), heads, time_scale, file)
    if learned_variance and overrides.variance:
        raise ValueError(f"{file.absolute()} has a learned variance: leave out --variance {overrides.variance}.")
    try:
        diffusion = DiffusionConfig(
            parametrization=overrides.parametrization or "eps",
            sigma_sampler="discrete_uniform",
            objective="hybrid" if learned_variance else "simple",
            schedule=overrides.schedule or "cosine",
            num_timesteps=num_timesteps,
        )
    except ValueError as error:
        raise ValueError(reason(error)) from error
    sampling = SamplingConfig(
        sampler="ancestral",
        steps=min(RESPACED_STEPS, num_timesteps),
        variance="learned" if learned_variance else overrides.variance or "large",
        clip=True,
    )
    names = tuple(str(i) for i in range(network.classes))
    origin = str(file.absolute())
    return ImportedModel(origin, network, diffusion, sampling, renamed, names, trained_unlabeled=False)
