"""Models for other programs, and from them."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from undiffuse.api.data import SizeLike
from undiffuse.api.runs import RunLike, Weights, as_run, checkpoint_part
from undiffuse.config import Config
from undiffuse.interop.imported import check_free, log_summary, save_run
from undiffuse.interop.onnx_file import TOLERANCE, check_packages, describe, to_onnx
from undiffuse.interop.onnx_runtime_web import runtime_files
from undiffuse.interop.pipelines import write_pipeline
from undiffuse.interop.sources import Overrides, read_model
from undiffuse.interop.web import write_web
from undiffuse.networks.classes import ClassChange
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.sampling.labels import Label, find_label
from undiffuse.sampling.model import Model, model_of
from undiffuse.sampling.options import check_guidance
from undiffuse.utils.conditions import NO_LABEL
from undiffuse.utils.files import read_small, write_atomically
from undiffuse.utils.parsing import at_least, parse_size
from undiffuse.utils.terminal import log, speaking

Format = Literal["diffusers", "onnx", "web"]

FORMATS = {"diffusers": "", "onnx": ".onnx", "web": "-web"}
"""What is added to the run's name for each format."""


def export(
    run: RunLike,
    to: Format = "diffusers",
    target: str | Path | None = None,
    *,
    label: Label | None = None,
    weights: Weights = "ema",
    progress: bool = False,
) -> Path:
    """Writes a trained model for other programs to open.

    Args:
        run: A run, its folder, its name under runs/, or a Model; None takes the newest run.
        to: The format. diffusers is a folder for `diffusers.DiffusionPipeline.from_pretrained`; onnx a file with the
            denoiser D(x, sigma, label), checked against torch; web a folder with a page that runs the model in the
            visitor's browser.
        target: The folder or file to make; None: exported/ and the run's name. It appears whole or not at all.
        label: For diffusers, always make images of this class, by name or index, or "none" for unlabeled ones: a
            DDPMPipeline takes no class. None: the network keeps its classes, which its `unet` takes as class_labels.
        weights: "ema", the exponential moving average, or "network", the weights that are being trained.
        progress: Shows notices.

    Returns:
        The folder or file.

    Raises:
        FileNotFoundError: there is no such run, it has no whole checkpoint, or what the page needs cannot be
            downloaded.
        ValueError: the format has no such model, a package is missing, an option is out of range, or there is something
            at `target`.

    Example:
        folder = undiffuse.export("runs/digits", target="exported/threes", label=3)
        diffusers.DiffusionPipeline.from_pretrained(folder)(num_inference_steps=1000).images[0]
    """
    if to not in FORMATS:
        raise ValueError(f"--to {to} is not a format: choose {', '.join(FORMATS)}.")
    part = checkpoint_part(weights)
    with speaking(progress):
        opened, checkpoint = _open(run)
        _check_told(opened)
        path = Path("exported") / f"{opened.name}{FORMATS[to]}" if target is None else Path(target).expanduser()
        if to == "diffusers":
            _export_pipeline(path, opened, checkpoint, part, label)
        else:
            if label is not None:
                raise ValueError(f"--label is for diffusers: {to} takes any label.")
            _export_denoiser(path, opened, checkpoint, part, to)
    return path


def _check_told(run: Run) -> None:
    """Raises ValueError for a network that is told more than a label (how it was augmented is not told in sampling)."""
    config = run.config
    reasons = {
        "makes images from others": config.image_condition is not None,
        "was trained with a table of attributes": config.attributes is not None,
        "was trained on patches, whose places it is told,": config.condition_sizes.coordinates,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(
                f"{run.folder.absolute()} {reason} and cannot be exported: what is exported is told the noise level "
                "and the label alone."
            )


def _export_pipeline(folder: Path, run: Run, checkpoint: Checkpoint, part: str, label: Label | None) -> None:
    config = run.config
    index = None if label is None else find_label(config.class_names, label)
    if index == NO_LABEL:
        check_guidance(config)
    write_pipeline(folder, config, _plain_tensors(config, checkpoint, part), index, run.folder)
    _log_exported(part, checkpoint, folder)
    _log_limits(config, index)


def _export_denoiser(path: Path, run: Run, checkpoint: Checkpoint, part: str, to: str) -> None:
    check_free(path)
    if to == "onnx" and path.is_dir():
        raise ValueError(f"{path.absolute()} is a folder: name a file, such as {run.name}.onnx.")
    config = run.config
    if to != "diffusers":
        check_packages()
    runtime = runtime_files() if to == "web" else {}  # Before the work, since it may have to be downloaded.
    network = config.network.build(learned_variance=config.diffusion.learned_variance)
    network.load_state_dict(_plain_tensors(config, checkpoint, part))
    model = model_of(network.eval().requires_grad_(False), config, torch.device("cpu"))
    model = replace(model, run=run, checkpoint=checkpoint, weights=part)
    card_file = run.folder / "model.md"
    card = read_small(card_file) if card_file.is_file() else ""
    log.info("Translating the network to ONNX, and comparing its images with torch's ...")
    content = to_onnx(model, describe(config, run.name, checkpoint.images, part, card))
    if to == "onnx":
        write_atomically(path, content)
        size = len(content)
    else:
        size = sum(write_web(path, model, run.name, content, card, runtime).values())
    _log_exported(part, checkpoint, path)
    log.info(f"{size / 1e6:,.1f} MB; its images are torch's within {TOLERANCE:g}.")


def _plain_tensors(config: Config, checkpoint: Checkpoint, part: str) -> dict[str, Tensor]:
    """The weights without those that only training uses: to be told of no augmentation is to be told nothing."""
    same = ClassChange(config.class_names, config.class_names)
    return config.network.adapted(checkpoint.tensors(part), same)


def import_model(
    source: str | Path,
    *,
    out: str | Path | None = None,
    size: SizeLike | None = None,
    heads: int | None = None,
    schedule: Literal["linear", "cosine"] | None = None,
    num_timesteps: int | None = None,
    parametrization: Literal["eps", "x0"] | None = None,
    variance: Literal["small", "large"] | None = None,
    raw_timesteps: bool = False,
    progress: bool = False,
) -> Run:
    """Makes a run of a model that was trained elsewhere, to sample from, evaluate and export.

    A diffusers folder states how its model was trained. A file of Improved DDPM's weights does not: the options do, and
    their defaults are those of its CIFAR-10 models.

    Args:
        source: A diffusers folder, a file of improved-diffusion's weights, or owner/name on the Hugging Face Hub.
        out: The run folder to make; None: runs/ and the name of the source. It appears whole or not at all.
        size: Height and width of the images in pixels, as in 64, "48x64" or (48, 64); None: 32.
        heads: Attention heads; None: 4.
        schedule: The noise schedule; None: cosine.
        num_timesteps: T, the number of noise levels; None: 4000.
        parametrization: Whether the network predicts the noise or the image; None: eps.
        variance: Of a sampling step, where it is not learned; None: large.
        raw_timesteps: The weights were trained with --rescale_timesteps False.
        progress: Shows notices.

    Raises:
        FileNotFoundError: there is nothing at `source`.
        ValueError: it is damaged, undiffuse does not support it, an option is out of range or contradicts it, or there
            is something at `out`.

    Example:
        run = undiffuse.import_model("google/ddpm-cifar10-32")
        undiffuse.load(run).sample(4, steps=20)
    """
    at_least(1, **{n: v for n, v in {"heads": heads, "num_timesteps": num_timesteps}.items() if v is not None})
    image_size = None if size is None else parse_size(size)
    overrides = Overrides(image_size, heads, schedule, num_timesteps, parametrization, variance, raw_timesteps)
    folder = Path("runs") / _name(source) if out is None else Path(out).expanduser()
    with speaking(progress):
        check_free(folder)
        model = read_model(source, overrides)
        log_summary(model)
        return save_run(model, folder)


def _open(run: RunLike) -> tuple[Run, Checkpoint]:
    """The run with its newest whole checkpoint, or the one that a Model was loaded from."""
    if isinstance(run, Model):
        return run.origin
    opened = as_run(run)
    checkpoint = opened.last_good()
    if checkpoint is None:
        raise FileNotFoundError(f"{opened.folder.absolute()} has no whole checkpoint: train it first, or for longer.")
    return opened, checkpoint


def _log_exported(part: str, checkpoint: Checkpoint, path: Path) -> None:
    log.info(f"Exported the {part} weights at {checkpoint.images:,} images to {path.absolute()}")


def _log_limits(config: Config, label: int | None) -> None:
    """Notices of what a DDPMPipeline does not do with the model."""
    if config.class_names and label is None:
        log.info(
            "The model makes images by class, but a DDPMPipeline takes no class: call its unet with class_labels, or "
            "export a single class with --label."
        )
    if config.class_names and config.sampling.guidance != 1:
        log.info(f"The run's guidance, {config.sampling.guidance:g}, was left out: a DDPMPipeline has none.")


def _name(source: str | Path) -> str:
    path = Path(source).expanduser().absolute()
    return path.stem if path.is_file() else path.name
