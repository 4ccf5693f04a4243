"""Diffusers folders, of a pipeline or of a model with its scheduler: read and written.

`undiffuse.json` in such a folder keeps what diffusers has no place for; diffusers does not read it.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.paths import printable
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop import schedulers, unet2d, unet2d_weights
from undiffuse.interop.imported import ImportedModel, check_free
from undiffuse.interop.settings import parse_settings, read_json, safe_text, settings_dict
from undiffuse.interop.weights import read_tensors
from undiffuse.networks.unet import UNetConfig
from undiffuse.utils.files import atomic_path
from undiffuse.utils.text import size_text

WEIGHTS = "diffusion_pytorch_model"
VERSION = "0.31.0"
"""Of diffusers: it and later versions read what is written here."""
PIPELINES = ("DDPMPipeline", "DDIMPipeline")
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
LABELS_FILE = "undiffuse.json"
FILES = (
    *("model_index.json", "config.json", "scheduler_config.json", "unet/config.json"),
    *("scheduler/scheduler_config.json", LABELS_FILE),
)
"""The settings files that are read, by their path in the folder."""
WEIGHT_FILES = tuple(f"{part}{WEIGHTS}{suffix}" for suffix in (".safetensors", ".bin") for part in ("unet/", ""))


@dataclass(frozen=True)
class Labels:
    """What undiffuse.json holds: what the rows of the label embedding stand for."""

    class_names: tuple[str, ...] = ()
    no_label: bool = False
    """Whether the last row is the one for no label."""


def is_pipeline(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "config.json", "unet/config.json"))


def read_pipeline(folder: Path, origin: str, size: tuple[int, int] | None) -> ImportedModel:
    """The model in a diffusers folder. `size` is the images', where the config does not state it.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or has a setting that undiffuse does not support.
    """
    if (folder / "model_index.json").is_file():
        _check_index(folder / "model_index.json")
    model, scheduler = (folder / part if (folder / part).is_dir() else folder for part in ("unet", "scheduler"))
    settings, network = _read_network(model / "config.json", size)
    learned_variance = settings.out_channels == 2 * settings.in_channels
    diffusion, sampling = _read_scheduler(scheduler / "scheduler_config.json", learned_variance)
    labels = _read_labels(network, folder / LABELS_FILE)
    if labels is not None:
        network = replace(network, classes=len(labels.class_names))
    weights = _weights_file(model)
    flip = settings.flip_sin_to_cos
    tensors = unet2d_weights.from_unet2d(read_tensors(weights), network, learned_variance, flip, weights)
    # Not before the weights have shown that there are so many classes.
    names = labels.class_names if labels is not None else tuple(str(i) for i in range(network.classes))
    trained_unlabeled = labels is not None and labels.no_label
    return ImportedModel(origin, network, diffusion, sampling, tensors, names, trained_unlabeled)


def write_pipeline(folder: Path, config: Config, tensors: dict[str, Tensor], label: int | None, where: Path) -> None:
    """A folder that diffusers' DiffusionPipeline.from_pretrained opens, written whole or not at all.

    With `label` the model always makes images of this class, or unlabeled ones for -1; otherwise it keeps its classes.
    `where` is the path that errors name.

    Raises:
        ValueError: diffusers has no such model, or there is something at `folder`.
    """
    check_free(folder)
    network, trained_unlabeled = config.network, config.training.label_dropout > 0
    if not isinstance(network, UNetConfig):
        raise ValueError(
            f"{where.absolute()} has the network {type(network).__name__}, which diffusers does not have: only "
            "undiffuse's U-Net can be exported."
        )
    label_rows = network.classes + trained_unlabeled if network.classes and label is None else 0
    unet = unet2d.settings_of(network, config.diffusion.learned_variance, label_rows, where)
    scheduler = schedulers.settings_of(config.diffusion, config.sampling, where)
    if label is not None:
        tensors = unet2d_weights.with_label(tensors, label)
    weights = unet2d_weights.to_unet2d(tensors, network, label_rows)
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    with atomic_path(folder) as temporary:
        for part in (temporary, temporary / "unet", temporary / "scheduler"):
            part.mkdir()
        _write(temporary / "model_index.json", index, "DDPMPipeline")
        _write(temporary / "unet" / "config.json", settings_dict(unet), "UNet2DModel")
        scheduler_values = settings_dict(scheduler, without=schedulers.DDIM_ONLY)
        _write(temporary / "scheduler" / "scheduler_config.json", scheduler_values, "DDPMScheduler")
        if label_rows:
            labels = asdict(Labels(config.class_names, trained_unlabeled))
            (temporary / LABELS_FILE).write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
        # diffusers requires this metadata.
        safetensors.torch.save_file(weights, temporary / "unet" / f"{WEIGHTS}.safetensors", {"format": "pt"})


def _read_network(file: Path, size: tuple[int, int] | None) -> tuple[unet2d.UNet2DSettings, UNetConfig]:
    values = read_json(file)
    _check_class(values, ("UNet2DModel",), file)
    settings = parse_settings(values, unet2d.UNet2DSettings, file)
    return settings, unet2d.network_of(settings, _image_size(settings.sample_size, size, file), file)


def _read_scheduler(file: Path, learned_variance: bool) -> tuple[DiffusionConfig, SamplingConfig]:
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {file.absolute()}, which states the model's noise schedule: save its scheduler there."
        )
    values = read_json(file)
    _check_class(values, SCHEDULERS, file)
    settings = parse_settings(values, schedulers.SchedulerSettings, file)
    return schedulers.diffusion_of(settings, values["_class_name"], learned_variance, file)


def _write(file: Path, values: dict[str, Any], class_name: str) -> None:
    content = {"_class_name": class_name, "_diffusers_version": VERSION, **values}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _check_index(file: Path) -> None:
    values = read_json(file)
    _check_class(values, PIPELINES, file)
    for name, classes in (("unet", ("UNet2DModel",)), ("scheduler", SCHEDULERS)):
        value = values.pop(name, None)
        if value not in [["diffusers", kind] for kind in classes]:
            raise ValueError(
                f"{file.absolute()} names {safe_text(value)} as its {name}: undiffuse reads diffusers' "
                f"{' and '.join(classes)}."
            )
    other = sorted(name for name, value in values.items() if not name.startswith("_") and value != [None, None])
    if other:
        raise ValueError(
            f"{file.absolute()} has a {safe_text(other[0])} besides its network: undiffuse reads only pipelines of a "
            "network and a scheduler."
        )


def _check_class(values: dict[str, Any], classes: tuple[str, ...], file: Path) -> None:
    name = values.get("_class_name")
    if name not in classes:
        raise ValueError(f"{file.absolute()} has the class {safe_text(name)}: undiffuse reads {' and '.join(classes)}.")


def _image_size(
    sample_size: int | tuple[int, int] | None, requested: tuple[int, int] | None, file: Path
) -> tuple[int, int]:
    """Height and width of the images."""
    stated = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    if stated is None:
        if requested is None:
            raise ValueError(f"{file.absolute()} has no sample_size: give the images' size with --size.")
        return requested
    if requested not in (None, stated):
        raise ValueError(f"{file.absolute()} states the images' size, {size_text(stated)}: leave out --size.")
    return stated


def _read_labels(network: UNetConfig, file: Path) -> Labels | None:
    """What the rows of the network's label embedding stand for, if undiffuse wrote it down."""
    if not file.is_file() or not network.classes:
        return None
    labels = parse_settings(read_json(file), Labels, file)
    if len(labels.class_names) + labels.no_label != network.classes:
        raise ValueError(
            f"{file.absolute()} names {len(labels.class_names)} classes, which do not fit the {network.classes} rows "
            "of the network's label embedding: it belongs to another model; remove it."
        )
    return replace(labels, class_names=tuple(map(printable, labels.class_names)))


def _weights_file(folder: Path) -> Path:
    if list(folder.glob(f"{WEIGHTS}*.index.json")):
        raise ValueError(
            f"{folder.absolute()} has its weights in several files: save them in one, {WEIGHTS}.safetensors."
        )
    candidates = [folder / f"{WEIGHTS}{suffix}" for suffix in (".safetensors", ".bin")]
    for file in candidates:
        if file.is_file():
            return file
    names = " or ".join(file.name for file in candidates)
    raise FileNotFoundError(f"{folder.absolute()} has no weights: get {names}.")
