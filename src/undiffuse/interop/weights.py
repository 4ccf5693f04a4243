"""Other programs' files of named tensors: opened without running anything in them, and renamed to undiffuse's names."""

import mmap
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from undiffuse.interop.settings import reason, safe_text
from undiffuse.networks.unet import UNetConfig
from undiffuse.utils.limits import how_to_raise, scaled

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
CONTAINERS = ("state_dict", "model", "ema")
"""The names under which programs save the weights together with other things."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

MAX_BYTES = 512 * 2**20
"""Of the weights in float32: 134 million parameters."""

MAX_HEADER_BYTES = 8 * 2**20
"""Of a .safetensors: names and shapes of some 50,000 tensors."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch.save file by name, float32, without prefixes that all names share.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something other than tensors, or would have to be run to be read.
    """
    if file.suffix == ".pkl":
        raise ValueError(
            f"{file.absolute()} is a pickle, which can run its author's code when it is opened: save only the weights, "
            "as .safetensors, with the program that made it."
        )
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file.absolute()} is not a weights file: give a folder, or one of {', '.join(SUFFIXES)}.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file.absolute()}: give a weights file or a diffusers folder.")
    _check_size(file.stat().st_size, file)
    tensors = _load_safetensors(file) if file.suffix == ".safetensors" else _load_state_dict(file)
    _check_tensors(tensors, file)
    for prefix in _shared_prefixes(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: tensor.float() for name, tensor in tensors.items()}


def unet_config(where: Path, **settings: Any) -> UNetConfig:
    """The config of the network at `where`.

    Raises:
        ValueError: undiffuse cannot build such a network.
    """
    try:
        return UNetConfig(**settings)
    except ValueError as error:
        raise ValueError(f"{where.absolute()} has a network that undiffuse cannot build: {reason(error)}") from error


def network_shapes(config: UNetConfig, learned_variance: bool) -> dict[str, torch.Size]:
    """The shapes of undiffuse's network's tensors by name, without allocating them."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in config.build(learned_variance).state_dict().items()}


def rename_tensors(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, torch.Size], where: Path
) -> dict[str, Tensor]:
    """The tensors under undiffuse's names and in its shapes; a 1x1 convolution may come as a matrix.

    `names` maps undiffuse's name of each tensor to the other program's.

    Raises:
        ValueError: a tensor is missing, left over, or of another shape; the first is named.
    """
    missing = [theirs for theirs in names.values() if theirs not in tensors]
    if missing:
        raise ValueError(
            f"{where.absolute()} has no weights {missing[0]}{_and_more(missing)}: it is damaged or incomplete."
        )
    extra = sorted(tensors.keys() - set(names.values()))
    if extra:
        raise ValueError(
            f"{where.absolute()} has weights {safe_text(extra[0])}{_and_more(extra)}, which undiffuse's U-Net does not "
            "have."
        )
    for ours, theirs in names.items():
        if _without_trailing_ones(tensors[theirs].shape) != _without_trailing_ones(shapes[ours]):
            raise ValueError(
                f"{where.absolute()}: {theirs} has the shape {tuple(tensors[theirs].shape)} instead of "
                f"{tuple(shapes[ours])}: these are the weights of another network."
            )
    return {ours: tensors[theirs].reshape(shapes[ours]) for ours, theirs in names.items()}


def _check_size(size: int, file: Path) -> None:
    if size > scaled(MAX_BYTES):
        raise ValueError(
            f"{file.absolute()} holds {size:,} bytes of weights, more than {scaled(MAX_BYTES) // 2**20:,} MiB: "
            f"{how_to_raise(size, scaled(MAX_BYTES))}."
        )


def _load_safetensors(file: Path) -> dict[str, Any]:
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(
            f"{file.absolute()} is damaged, or not a safetensors file (its header claims {length:,} bytes): get it "
            "again."
        )
    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{file.absolute()} is damaged, or not a safetensors file ({safe_text(error)}): get it again."
        ) from error


def _load_state_dict(file: Path) -> dict[Any, Any]:
    _check_uncompressed(file)
    _check_claims(file)
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # The unpickler may raise anything on damaged bytes.
        first = safe_text(error).split(". ")[0]
        raise ValueError(
            f"{file.absolute()} holds more than weights, or is damaged, and was not opened further ({first}): save "
            "only the state dict, with torch.save or as .safetensors."
        ) from error
    return _unwrap(content, file)


def _check_uncompressed(file: Path) -> None:
    """Raises ValueError for a compressed archive, which may unpack to more than fits in memory; torch.save's is not."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # Not a zip archive, or a damaged one: torch.load will say so.
    if unpacked > file.stat().st_size:
        raise ValueError(f"{file.absolute()} is compressed, which torch.save does not do: save it again.")


def _check_claims(file: Path) -> None:
    """Raises ValueError where bytes of any number are asked for, which torch allows, and no weights need."""
    if not file.stat().st_size:
        return
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        asks = content.find(b"bytearray") >= 0
    if asks:
        raise ValueError(f"{file.absolute()} holds more than weights, and was not opened: save only the state dict.")


def _unwrap(content: Any, file: Path) -> dict[Any, Any]:
    """The state dict inside what a program saved."""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        inner = [name for name in CONTAINERS if isinstance(content.get(name), dict)]
        if len(inner) > 1:
            raise ValueError(
                f"{file.absolute()} holds weights as {' and as '.join(inner)}: save only those you want, as "
                ".safetensors."
            )
        if not inner:
            return content
        content = content[inner[0]]
    raise ValueError(f"{file.absolute()} does not hold weights by name: save a network's state dict.")


def _check_tensors(tensors: dict[Any, Any], file: Path) -> None:
    if not tensors:
        raise ValueError(f"{file.absolute()} holds no weights: save a network's state dict.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise ValueError(f"{file.absolute()}: {safe_text(name)} is not a tensor: save only a network's state dict.")
        if not tensor.is_floating_point() or tensor.device.type != "cpu":
            raise ValueError(
                f"{file.absolute()}: {safe_text(name)} is {tensor.dtype} on {tensor.device}, not a weight: save only a "
                "network's state dict."
            )
    # Tensors may be views of the same few numbers and claim any shape.
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > file.stat().st_size:
        raise ValueError(
            f"{file.absolute()} claims more numbers than it holds: save each weight as a contiguous tensor."
        )
    _check_size(4 * sum(tensor.numel() for tensor in tensors.values()), file)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{file.absolute()}: {safe_text(name)} has infinite values or NaN: get another file.")


def _shared_prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """The known prefixes that all names begin with, outermost first."""
    names, prefixes = list(tensors), []
    while True:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            return prefixes
        prefixes.append(prefix)
        names = [name.removeprefix(prefix) for name in names]


def _without_trailing_ones(shape: torch.Size) -> tuple[int, ...]:
    sides = tuple(shape)
    while sides and sides[-1] == 1:
        sides = sides[:-1]
    return sides


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
