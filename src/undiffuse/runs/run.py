"""The run folder: what a run is, its checkpoints, and the promise that the last good one survives anything."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from undiffuse.config import Config, read_config, to_json
from undiffuse.utils.files import UNFINISHED, atomic_path, remove, remove_unfinished, write_atomically
from undiffuse.utils.terminal import log

Tensors = Mapping[str, Tensor]


class NonFiniteError(ArithmeticError):
    """A value that would be saved is infinite or no number."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved state: parts of named tensors (`network`, `average`, `optimizer`) and a small JSON state."""

    folder: Path
    images: int

    def fault(self) -> str | None:
        """Why this checkpoint cannot be used, or None: every file is compared with its recorded digest."""
        try:
            for part in self._index["parts"]:
                self._bytes(part)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return str(error)
        return None

    @property
    def state(self) -> dict[str, Any]:
        return self._index["state"]

    def digest(self, part: str) -> str:
        """Of the part's file: the same for the same tensors only."""
        return self._index["parts"][part]

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The tensors of `part`.

        Raises:
            ValueError: the file is not what was saved.
        """
        return safetensors.torch.load(self._bytes(part))

    @cached_property
    def _index(self) -> dict[str, Any]:
        return json.loads((self.folder / "checkpoint.json").read_text(encoding="utf-8"))

    def _bytes(self, part: str) -> bytes:
        content = (self.folder / f"{part}.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != self._index["parts"][part]:
            raise ValueError(f"{part}.safetensors is damaged")
        return content


@dataclass(frozen=True)
class Run:
    """A run folder that exists."""

    folder: Path
    config: Config

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def log_lines(self) -> list[dict[str, Any]]:
        """What `log.jsonl` holds; a last line cut short by a crash is left out."""
        lines = []
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def checkpoints(self) -> list[Checkpoint]:
        """All that are there, good or not, newest first."""
        folder = self.folder / "checkpoints"
        found = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
        return sorted((Checkpoint(path, int(path.name)) for path in found), key=lambda c: c.images, reverse=True)

    def last_good(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; each newer one that is not is named."""
        for i, checkpoint in enumerate(self.checkpoints()):
            fault = checkpoint.fault()
            if fault is None:
                if i > 0:
                    log.info(f"Using the last good checkpoint: {checkpoint.folder}")
                return checkpoint
            log.info(f"The checkpoint {checkpoint.folder} is not whole ({fault}).")
        return None

    def save(self, images: int, parts: Mapping[str, Tensors], state: dict[str, Any], keep: int) -> Checkpoint:
        """Writes a checkpoint whole or not at all, then removes all but the newest `keep`, at least one, up to it.

        Raises:
            NonFiniteError: a tensor holds an infinity or NaN; nothing is written.
            OSError: no space, or no right to write; what was there before is still there.
        """
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise NonFiniteError(f"{part}: {name} is no longer finite")
        folder = self.folder / "checkpoints" / str(images)
        if folder.exists():  # Left over from before a resume, damaged or soon to be the same again.
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
        there = self.checkpoints()
        # What is newer was damaged when this run was resumed: it must not count for one of those that are kept.
        abandoned = [checkpoint for checkpoint in there if checkpoint.images > images]
        older = [checkpoint for checkpoint in there if checkpoint.images <= images][keep:]
        for checkpoint in abandoned + older:
            remove(checkpoint.folder)
        remove_unfinished(folder.parent)
        return Checkpoint(folder, images)


def create_run(folder: Path, config: Config) -> Run:
    """Makes the run folder with its config.

    Raises:
        ValueError: there is something else at that place.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder.absolute()} is there already and is no run: choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", to_json(config))
    return Run(folder, config)


def open_run(folder: Path) -> Run:
    """The run in `folder`, which `find_run` found.

    Raises:
        ValueError: its config cannot be read.
    """
    return Run(folder, read_config(folder / "config.json"))
