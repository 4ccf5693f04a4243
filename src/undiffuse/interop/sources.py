"""Where a model comes from: one word on the command line becomes a model in our terms."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop.hub import download, is_hub_id
from undiffuse.interop.imported import ImportedModel
from undiffuse.interop.openai import from_openai, is_openai
from undiffuse.interop.pipelines import is_pipeline, read_pipeline
from undiffuse.interop.settings import shown
from undiffuse.interop.weights import SUFFIXES, read_tensors

RESPACED_STEPS = 250
"""Steps in which Improved DDPM's models are sampled unless asked otherwise, as in that program's examples."""


@dataclass(frozen=True)
class Overrides:
    """What a file of weights alone does not say. Unless given: Improved DDPM's CIFAR-10 models."""

    size: tuple[int, int] | None = None
    heads: int | None = None
    schedule: Literal["linear", "cosine"] | None = None
    num_timesteps: int | None = None
    parametrization: Literal["eps", "x0"] | None = None
    variance: Literal["small", "large"] | None = None
    raw_timesteps: bool = False
    """Trained with --rescale_timesteps False."""


def find_model(source: str, unsaid: Overrides) -> ImportedModel:
    """The model at `source`: a folder of diffusers, a file of Improved DDPM's weights, or an id on the Hub.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is damaged, or a model that we cannot express, or it says itself what `unsaid` gives.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path, str(path.absolute()), unsaid)
    if path.exists() or path.suffix in SUFFIXES or path.suffix == ".pkl":
        return _from_weights(path, unsaid)
    if is_hub_id(source):
        return _from_folder(download(source), source, unsaid)
    raise FileNotFoundError(f"There is nothing at {path.absolute()}: give a folder, a file of weights, or owner/name.")


def _from_folder(folder: Path, origin: str, unsaid: Overrides) -> ImportedModel:
    if not is_pipeline(folder):
        raise ValueError(
            f"{folder.absolute()} is no model of diffusers, with no model_index.json or config.json: of other weights, "
            "give the file."
        )
    if unsaid != Overrides(size=unsaid.size):
        raise ValueError(
            f"{folder.absolute()} says itself how it was made: leave all options but --out and --size out."
        )
    return read_pipeline(folder, origin, unsaid.size)


def _from_weights(file: Path, unsaid: Overrides) -> ImportedModel:
    tensors = read_tensors(file)
    if "conv_in.weight" in tensors:
        raise ValueError(
            f"{file.absolute()} holds weights of diffusers, which need their config.json: give the folder with both."
        )
    if not is_openai(tensors):
        raise ValueError(
            f"{file.absolute()} holds weights of another network ({shown(next(iter(tensors)))} and more): undiffuse "
            "reads those of improved-diffusion, and folders of diffusers."
        )
    num_timesteps = 4000 if unsaid.num_timesteps is None else unsaid.num_timesteps
    time_scale = 1.0 if unsaid.raw_timesteps else 1000 / max(num_timesteps, 1)
    heads = 4 if unsaid.heads is None else unsaid.heads
    network, learned, ours = from_openai(tensors, unsaid.size or (32, 32), heads, time_scale, file)
    if learned and unsaid.variance:
        raise ValueError(f"{file.absolute()} has a learned variance: leave --variance {unsaid.variance} out.")
    diffusion = DiffusionConfig(
        parametrization=unsaid.parametrization or "eps",
        draw="discrete_uniform",
        objective="hybrid" if learned else "simple",
        schedule=unsaid.schedule or "cosine",
        num_timesteps=num_timesteps,
    )
    sampling = SamplingConfig(
        sampler="ancestral",
        steps=min(RESPACED_STEPS, num_timesteps),
        variance="learned" if learned else unsaid.variance or "large",
        clip=True,
    )
    names = tuple(str(i) for i in range(network.classes))
    return ImportedModel(str(file.absolute()), network, diffusion, sampling, ours, names, hides_labels=False)
