"""Folders of Hugging Face diffusers: a pipeline's, or a model's with its scheduler, read and written.

`undiffuse.json` beside their files keeps what these have no place for; diffusers does not read it.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from undiffuse.config import Config
from undiffuse.data.paths import printable
from undiffuse.interop import schedulers, unet2d, unet2d_weights
from undiffuse.interop.imported import ImportedModel, check_new
from undiffuse.interop.settings import as_settings, read_json, shown, spoken
from undiffuse.interop.weights import read_tensors
from undiffuse.networks.unet import UNetConfig
from undiffuse.utils.files import atomic_path

WEIGHTS = "diffusion_pytorch_model"
VERSION = "0.31.0"
"""Of diffusers: what is written here is read by this and later versions."""
PIPELINES = ("DDPMPipeline", "DDIMPipeline")
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
OURS = "undiffuse.json"
FILES = (
    *("model_index.json", "config.json", "scheduler_config.json", "unet/config.json"),
    *("scheduler/scheduler_config.json", OURS),
)
"""The settings that are read, where they are."""
WEIGHT_FILES = tuple(f"{part}{WEIGHTS}{suffix}" for suffix in (".safetensors", ".bin") for part in ("unet/", ""))


@dataclass(frozen=True)
class Remarks:
    """What undiffuse.json holds."""

    class_names: tuple[str, ...] = ()
    no_label: bool = False
    """Whether the label embedding's last row is that of no label."""


def is_pipeline(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "config.json", "unet/config.json"))


def read_pipeline(folder: Path, origin: str, size: tuple[int, int] | None) -> ImportedModel:
    """The model in a folder of diffusers. `size` is that of the images, where the config leaves it open.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or says what we cannot express.
    """
    if (folder / "model_index.json").is_file():
        _check_index(folder / "model_index.json")
    model, scheduler = (folder / part if (folder / part).is_dir() else folder for part in ("unet", "scheduler"))
    file = model / "config.json"
    values = read_json(file)
    _check_class(values, ("UNet2DModel",), file)
    settings = as_settings(values, unet2d.UNet2DSettings, file)
    network = unet2d.network_of(settings, _size(settings.sample_size, size, file), file)
    doubled = settings.out_channels == 2 * settings.in_channels

    file = scheduler / "scheduler_config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {file.absolute()}, which says what noise the model knows: save its scheduler there."
        )
    values = read_json(file)
    _check_class(values, SCHEDULERS, file)
    scheduled = as_settings(values, schedulers.SchedulerSettings, file)
    diffusion, sampling = schedulers.diffusion_of(scheduled, values["_class_name"], doubled, file)

    remarks = _remarks(network, folder / OURS)
    if remarks is not None:
        network = replace(network, classes=len(remarks.class_names))
    weights = _weights_file(model)
    flip = settings.flip_sin_to_cos
    tensors = unet2d_weights.from_unet2d(read_tensors(weights), network, doubled, flip, weights)
    # Counted after the weights have shown that there are as many.
    names = remarks.class_names if remarks is not None else tuple(str(i) for i in range(network.classes))
    return ImportedModel(origin, network, diffusion, sampling, tensors, names, remarks is not None and remarks.no_label)


def write_pipeline(folder: Path, config: Config, tensors: dict[str, Tensor], label: int | None, where: Path) -> None:
    """A folder that diffusers' DiffusionPipeline.from_pretrained opens, written whole or not at all.

    With `label` the model always draws this class, -1 for no label; otherwise it keeps its classes. `where` is what
    an error names.

    Raises:
        ValueError: diffusers cannot express the model, or there is something at `folder`.
    """
    check_new(folder)
    network, hides_labels = config.network, config.training.label_dropout > 0
    label_rows = network.classes + hides_labels if network.classes and label is None else 0
    learned = config.diffusion.learned_variance
    unet = unet2d.settings_of(network, learned, label_rows, where)
    scheduled = spoken(schedulers.settings_of(config.diffusion, config.sampling, where), without=schedulers.DDIM_ALONE)
    if label is not None:
        tensors = unet2d_weights.with_label(tensors, label)
    weights = unet2d_weights.to_unet2d(tensors, network, label_rows)
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    with atomic_path(folder) as temporary:
        for part in (temporary, temporary / "unet", temporary / "scheduler"):
            part.mkdir()
        _write(temporary / "model_index.json", index, "DDPMPipeline")
        _write(temporary / "unet" / "config.json", spoken(unet), "UNet2DModel")
        _write(temporary / "scheduler" / "scheduler_config.json", scheduled, "DDPMScheduler")
        if label_rows:
            remarks = asdict(Remarks(config.class_names, hides_labels))
            (temporary / OURS).write_text(json.dumps(remarks, indent=2) + "\n", encoding="utf-8")
        # The metadata is what diffusers asks for.
        safetensors.torch.save_file(weights, temporary / "unet" / f"{WEIGHTS}.safetensors", {"format": "pt"})


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
                f"{file.absolute()} names {shown(value)} as its {name}: undiffuse reads diffusers' "
                f"{' and '.join(classes)}."
            )
    other = sorted(name for name, value in values.items() if not name.startswith("_") and value != [None, None])
    if other:
        raise ValueError(
            f"{file.absolute()} has a {shown(other[0])} beside its network: undiffuse reads pipelines of a network "
            "and a scheduler alone."
        )


def _check_class(values: dict[str, Any], classes: tuple[str, ...], file: Path) -> None:
    kind = values.get("_class_name")
    if kind not in classes:
        raise ValueError(f"{file.absolute()} is of the class {shown(kind)}: undiffuse reads {' and '.join(classes)}.")


def _size(said: int | tuple[int, int] | None, asked: tuple[int, int] | None, file: Path) -> tuple[int, int]:
    """Height and width of the images."""
    size = (said, said) if isinstance(said, int) else said
    if size is None and asked is None:
        raise ValueError(f"{file.absolute()} has no sample_size: give the images' --size.")
    if size is not None and asked not in (None, size):
        raise ValueError(f"{file.absolute()} says the size of the images, {size[0]}x{size[1]}: leave --size out.")
    found = size or asked
    assert found is not None
    return found


def _remarks(network: UNetConfig, file: Path) -> Remarks | None:
    """What we wrote of the network's classes, if we did."""
    if not file.is_file() or not network.classes:
        return None
    remarks = as_settings(read_json(file), Remarks, file)
    if len(remarks.class_names) + remarks.no_label != network.classes:
        raise ValueError(
            f"{file.absolute()} names {len(remarks.class_names)} classes, which do not fit the {network.classes} rows "
            "of the network's label embedding: it belongs to another model; remove it."
        )
    return replace(remarks, class_names=tuple(map(printable, remarks.class_names)))


def _weights_file(folder: Path) -> Path:
    if list(folder.glob(f"{WEIGHTS}*.index.json")):
        raise ValueError(
            f"{folder.absolute()} has its weights in several files: save them as one, {WEIGHTS}.safetensors."
        )
    there = [folder / f"{WEIGHTS}{suffix}" for suffix in (".safetensors", ".bin")]
    found = next((file for file in there if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{folder.absolute()} has no weights: {there[0].name} or {there[1].name} is missing.")
    return found
