"""The run folder: its config, log and checkpoints, and the promise that the last good checkpoint survives anything."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from undiffuse.config import Config, read_config, to_json
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.find import output_folder
from undiffuse.utils.files import (
    MOST_RECORD_BYTES,
    UNFINISHED,
    atomic_path,
    read_small,
    remove,
    remove_unfinished,
    write_atomically,
)
from undiffuse.utils.terminal import log
from undiffuse.utils.text import CHANNELS, printable, size_text

Tensors = Mapping[str, Tensor]


OLD_PARTS = {"ema": "average", "sigma_sampler": "draws"}
"""What parts are called in checkpoints written by older versions."""


MAX_LOG_BYTES = 128 * 2**20
"""Of log.jsonl: half a million lines."""


MOST_BYTES_A_WEIGHT = 16
"""In any file of a checkpoint: an optimizer's two or three moments in float32, and a little more."""


class NonFiniteError(ArithmeticError):
    """A value is infinite or NaN, so that training cannot go on or a checkpoint must not be written."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a run: a few parts, each a safetensors file of named tensors, and a small JSON state.

    The parts are `network` (the weights), `ema` (their moving average), `optimizer`, and `sigma_sampler` where the
    noise-level sampler learns from the losses.
    """

    folder: Path
    images: int
    """Images seen in training when it was saved."""

    def fault(self, most_bytes: int | None = None) -> str | None:
        """What is wrong with the files, each compared with its recorded digest, or None if the checkpoint is whole.

        Files of more than `most_bytes` are not read.
        """
        try:
            if not isinstance(self.state, dict):
                return "its state is no object"
            for part in self._index["parts"]:
                size = self._file(part).stat().st_size
                if most_bytes is not None and size > most_bytes:
                    return f"{part}.safetensors has {size:,} bytes, more than a network like that of config.json needs"
                self._check_digest(part)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return printable(str(error))
        return None

    @property
    def state(self) -> dict[str, Any]:
        """Counters and what observers of training keep, as JSON has them."""
        return self._index["state"]

    @property
    def ema_length(self) -> float | None:
        """Of an EMA that `undiffuse tune-ema` made: the standard deviation of its profile, as a fraction of the
        training. None for one that was made in training."""
        length = self.state.get("ema_length")
        return length if isinstance(length, float) and 0 < length < 1 else None

    @property
    def ema_of(self) -> str | None:
        """The SHA-256 of the last EMA of the training that such an EMA was made from."""
        digest = self.state.get("ema_of")
        return digest if isinstance(digest, str) else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts, as they are stored."""
        return tuple(self._index["parts"])

    def digest(self, part: str) -> str:
        """The SHA-256 of the part's file, in hexadecimal: equal only for equal tensors."""
        return self._index["parts"][self._stored_name(part)]

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The tensors of `part` by name, on the CPU.

        Raises:
            ValueError: the checkpoint has no such part, or the file is not what was saved.
        """
        name = self._stored_name(part)
        self._check_digest(name)
        try:
            return safetensors.torch.load_file(self._file(name))
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{self._file(name).absolute()} is not a safetensors file ({error}): remove the checkpoint."
            ) from error

    def _stored_name(self, part: str) -> str:
        parts = self._index["parts"]
        for name in (part, OLD_PARTS.get(part, part)):
            if name in parts:
                return name
        raise ValueError(f"{self.folder.absolute()} has no part {part}: it has {', '.join(parts)}.")

    @cached_property
    def _index(self) -> dict[str, Any]:
        return json.loads(read_small(self.folder / "checkpoint.json"))

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}.safetensors"

    def _check_digest(self, part: str) -> None:
        with open(self._file(part), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # Piece by piece: it may be larger than memory.
        if digest != self._index["parts"][part]:
            raise ValueError(f"{part}.safetensors is damaged")


@dataclass(frozen=True)
class Run:
    """A run folder: what `undiffuse.train` returns, and what sampling and evaluation start from.

    Example:
        run = undiffuse.train("photos/", size=32, minutes=10)
        run.config.training.batch
        [line["loss"] for line in run.log_lines()]
        run.last_good().tensors("ema")
    """

    folder: Path
    config: Config
    """Everything that rebuilds the model, what trained it, and on which images."""

    def __repr__(self) -> str:
        config, checkpoints = self.config, self.checkpoints()
        images = f"{size_text(config.network.size)} {CHANNELS.get(config.network.image_channels, 'images')}"
        classes = f", {len(config.class_names):,} classes" if config.class_names else ""
        trained = f"trained on {checkpoints[0].images:,} images" if checkpoints else "no checkpoint yet"
        origin, change = config.origin, config.class_change
        changed = f": {change}" if change and change.before != change.after else ""
        started = f", started from {Path(origin.run).name} ({origin.images:,} images{changed})" if origin else ""
        return f"Run({str(self.folder)!r}: preset {config.preset}, {images}{classes}, {trained}{started})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def output_folder(self) -> Path:
        """Where samples and evaluations go: the folder itself or, for a model of the package, runs/shipped/NAME."""
        return output_folder(self.folder)

    @property
    def log_file(self) -> Path:
        """`log.jsonl`, which is there once training has begun."""
        return self.folder / "log.jsonl"

    def log_lines(self) -> list[dict[str, Any]]:
        """The lines of `log.jsonl`, oldest first; a last line that a crash cut short is left out.

        Each has `images` (seen so far), the means `loss` and `gradient_norm` over the batches since the line before
        (None if all of them were skipped), `learning_rate`, `skipped_batches` and `seconds` (of training, so far).
        """
        lines = []
        for line in read_small(self.log_file, MAX_LOG_BYTES).splitlines() if self.log_file.exists() else []:
            try:
                lines.append(json.loads(line))
            except (ValueError, RecursionError):
                break
        return lines

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, whole or not, newest first."""
        folder = self.folder / "checkpoints"
        found = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
        return sorted((Checkpoint(path, int(path.name)) for path in found), key=lambda c: c.images, reverse=True)

    def last_good(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None; a notice names each newer one that is damaged."""
        for i, checkpoint in enumerate(self.checkpoints()):
            fault = checkpoint.fault(self.most_bytes)
            if fault is None:
                if i > 0:
                    log.info(f"Using the last good checkpoint: {checkpoint.folder}")
                return checkpoint
            log.info(f"The checkpoint {checkpoint.folder} is not whole ({fault}).")
        return None

    @cached_property
    def most_bytes(self) -> int | None:
        """Of a file of a checkpoint, or None for a network of your own, which need not know the meta device."""
        if not isinstance(self.config.network, UNetConfig):
            return None
        with torch.device("meta"):
            weights = self.config.build_network().state_dict().values()
        return MOST_BYTES_A_WEIGHT * sum(tensor.numel() for tensor in weights) + MOST_RECORD_BYTES

    def save(self, images: int, parts: Mapping[str, Tensors], state: dict[str, Any], keep: int) -> Checkpoint:
        """Writes a checkpoint whole or not at all, then removes all but the newest `keep` (at least one).

        Raises:
            NonFiniteError: a tensor holds an infinity or NaN; nothing is written.
            OSError: the disk is full or the folder is not writable; older checkpoints are untouched.
        """
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise NonFiniteError(f"{part}: {name} is no longer finite")
        folder = self.folder / "checkpoints" / str(images)
        if folder.exists():  # Left over from before a resume: damaged, or about to be written again the same.
            folder.rename(folder.with_name(f"{UNFINISHED}{folder.name}"))
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            digests = {}
            for part, tensors in parts.items():
                content = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
                (temporary / f"{part}.safetensors").write_bytes(content)
                digests[part] = hashlib.sha256(content).hexdigest()
            index = {"images": images, "parts": digests, "state": state}
            (temporary / "checkpoint.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
        everything = self.checkpoints()
        # A newer one was damaged when this run was resumed: it must not count as one of those that are kept.
        abandoned = [checkpoint for checkpoint in everything if checkpoint.images > images]
        older = [checkpoint for checkpoint in everything if checkpoint.images <= images][keep:]
        for checkpoint in abandoned + older:
            remove(checkpoint.folder)
        remove_unfinished(folder.parent)
        return Checkpoint(folder, images)


def create_run(folder: Path, config: Config) -> Run:
    """Makes the run folder with its config.

    Raises:
        ValueError: something else is at that path.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder.absolute()} already exists and is not a run: choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", to_json(config))
    return Run(folder, config)


def open_run(folder: Path, network: type[NetworkConfig] = UNetConfig) -> Run:
    """The run in `folder`, which `find_run` found. `network` is the config class of a network of your own.

    Raises:
        ValueError: its config cannot be read.
    """
    return Run(folder, read_config(folder / "config.json", network))
