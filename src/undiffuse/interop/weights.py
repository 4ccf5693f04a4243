"""Files of named tensors from elsewhere, opened without running anything in them, and renamed to our names."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from undiffuse.interop.settings import shown
from undiffuse.networks.unet import UNet, UNetConfig

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
NESTED = ("state_dict", "model", "ema")
"""Under which names programs put the weights among other things."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch.save file by name, float32, without prefixes that all names share.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds other things than tensors, or would have to be run to be read.
    """
    if file.suffix == ".pkl":
        raise ValueError(
            f"{file.absolute()} is a pickle, as EDM's networks are, which runs its maker's code when it is opened: "
            "have that program save the weights alone, as .safetensors."
        )
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file.absolute()} is no file of weights: give a folder, or one of {', '.join(SUFFIXES)}.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file.absolute()}: give one of weights, or a folder of diffusers.")
    tensors = _safetensors(file) if file.suffix == ".safetensors" else _state_dict(file)
    _check_tensors(tensors, file)
    for prefix in _shared_prefixes(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: tensor.float() for name, tensor in tensors.items()}


def checked_config(where: Path, **settings: Any) -> UNetConfig:
    """The config of a network that `where` holds.

    Raises:
        ValueError: there is no such network here.
    """
    try:
        return UNetConfig(**settings)
    except ValueError as error:
        raise ValueError(f"{where.absolute()} holds no network that undiffuse can build: {error}") from error


def network_shapes(config: UNetConfig, learned_variance: bool) -> dict[str, torch.Size]:
    """The shapes of our network's tensors by name; no memory is taken for them."""
    with torch.device("meta"):
        return {name: t.shape for name, t in UNet(config, learned_variance=learned_variance).state_dict().items()}


def renamed(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, torch.Size], where: Path
) -> dict[str, Tensor]:
    """The tensors under our names, given their name of each, in our shapes; a 1x1 convolution may come as a matrix.

    Raises:
        ValueError: one is missing, left over, or of another shape; the first is named.
    """
    missing = [theirs for theirs in names.values() if theirs not in tensors]
    if missing:
        raise ValueError(
            f"{where.absolute()} has no weights {missing[0]}{_more(missing)}: it is damaged or incomplete."
        )
    left = sorted(tensors.keys() - set(names.values()))
    if left:
        raise ValueError(
            f"{where.absolute()} has weights {shown(left[0])}{_more(left)}, for which undiffuse's U-Net has no place."
        )
    for ours, theirs in names.items():
        if _without_ones(tensors[theirs].shape) != _without_ones(shapes[ours]):
            raise ValueError(
                f"{where.absolute()}: {theirs} has the shape {tuple(tensors[theirs].shape)} where "
                f"{tuple(shapes[ours])} is needed: these are the weights of another network."
            )
    return {ours: tensors[theirs].reshape(shapes[ours]) for ours, theirs in names.items()}


def _safetensors(file: Path) -> dict[str, Any]:
    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{file.absolute()} is damaged, or no safetensors file ({shown(error)}): get it again."
        ) from error


def _state_dict(file: Path) -> dict[Any, Any]:
    _check_not_compressed(file)
    try:
        with warnings.catch_warnings(action="ignore"):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # What the unpickler raises on damaged bytes is anybody's guess.
        first = shown(error).split(". ")[0]
        raise ValueError(
            f"{file.absolute()} holds more than weights, or is damaged, and was not opened further ({first}): save the "
            "state dict alone, with torch.save or as .safetensors."
        ) from error
    return _unnested(found, file)


def _check_not_compressed(file: Path) -> None:
    """torch.save stores; what is compressed may unpack to more than there is memory for."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # No zip archive, or a damaged one: torch.load tells.
    if unpacked > file.stat().st_size:
        raise ValueError(f"{file.absolute()} is compressed, which torch.save does not do: save it again.")


def _unnested(found: Any, file: Path) -> dict[Any, Any]:
    for _ in range(3):
        if not isinstance(found, dict):
            break
        nested = [name for name in NESTED if isinstance(found.get(name), dict)]
        if len(nested) > 1:
            raise ValueError(
                f"{file.absolute()} holds weights as {' and as '.join(nested)}: save those you mean alone, as "
                ".safetensors."
            )
        if not nested:
            return found
        found = found[nested[0]]
    raise ValueError(f"{file.absolute()} holds no weights by name: save a network's state dict.")


def _check_tensors(tensors: dict[Any, Any], file: Path) -> None:
    if not tensors:
        raise ValueError(f"{file.absolute()} holds no weights.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise ValueError(f"{file.absolute()}: {shown(name)} is no tensor: save a network's state dict alone.")
        if not tensor.is_floating_point() or tensor.device.type != "cpu":
            raise ValueError(f"{file.absolute()}: {shown(name)} is {tensor.dtype} on {tensor.device}, and no weight.")
    # Tensors may be views of the same few numbers, and claim any shape.
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > file.stat().st_size:
        raise ValueError(f"{file.absolute()} claims more numbers than it holds: save each weight for itself.")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{file.absolute()}: {shown(name)} has infinite values or NaN, and draws nothing.")


def _shared_prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """The known prefixes that all names begin with, outermost first."""
    names, found = list(tensors), []
    while True:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            return found
        found.append(prefix)
        names = [name.removeprefix(prefix) for name in names]


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    sides = tuple(shape)
    while sides and sides[-1] == 1:
        sides = sides[:-1]
    return sides


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
