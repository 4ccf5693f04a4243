"""EMAs of other lengths, after the training, from the checkpoints that were kept (Karras et al. 2024, EDM2, section
3.2).

Each checkpoint's EMA is the weights of training averaged with a known profile. A sum of EMAs has the sum of their
profiles, so the coefficients whose sum comes closest to the profile of another length make an EMA of that length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from undiffuse.runs.ema_profile import ema_length, ema_profile, moments, power_function_profile
from undiffuse.runs.find import is_run
from undiffuse.runs.run import Checkpoint, Run, create_run, open_run
from undiffuse.utils.files import atomic_path
from undiffuse.utils.terminal import log

MOST_ERROR = 0.25
"""Of a profile, relative to what it should be: what is further off has another length than the one asked for."""


@dataclass(frozen=True)
class Combination:
    """The sum of the checkpoints' EMAs that comes closest to an EMA of some length."""

    coefficients: tuple[float, ...]
    """One for each checkpoint, oldest first. Their sum is 1, so that weights that never moved stay as they are."""
    error: float
    """Root mean square difference of its profile to that of the length, relative to the latter."""


def combination(snapshots: Sequence[int], halflife_images: float, length: float) -> Combination:
    """The least squares fit to the profile of this length, for checkpoints after so many images each, oldest first."""
    images = moments(snapshots[-1])
    profiles = np.stack([ema_profile(images, snapshot, halflife_images) for snapshot in snapshots])
    goal = power_function_profile(images, snapshots[-1], length)
    differences = profiles[:-1] - profiles[-1]
    first = np.linalg.lstsq(differences.T, goal - profiles[-1], rcond=None)[0]
    coefficients = np.append(first, 1 - first.sum())
    error = np.linalg.norm(coefficients @ profiles - goal) / np.linalg.norm(goal)
    return Combination(tuple(coefficients.tolist()), float(error))


def as_trained(snapshots: Sequence[int], halflife_images: float) -> tuple[float, Combination]:
    """The length of the last checkpoint's EMA as it was trained, and that EMA alone."""
    coefficients = (*[0.0] * (len(snapshots) - 1), 1.0)
    return ema_length(snapshots[-1], halflife_images), Combination(coefficients, 0.0)


def whole_checkpoints(run: Run) -> list[Checkpoint]:
    """Those of the training that are whole, oldest first; a notice names each that is not."""
    found = []
    for checkpoint in reversed(run.checkpoints()):
        if checkpoint.images == 0:
            continue  # The weights of another run that training began with: no average of this one.
        fault = checkpoint.fault(run.most_bytes)
        if fault is None:
            found.append(checkpoint)
        else:
            log.warning(f"The checkpoint {checkpoint.folder} is left out: {fault}")
    return found


def combined(checkpoints: Sequence[Checkpoint], coefficients: Sequence[float]) -> dict[str, Tensor]:
    """The sum of the checkpoints' EMAs with these coefficients, added in float64, one checkpoint at a time.

    Raises:
        ValueError: they are of different networks.
    """
    total: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for checkpoint, coefficient in zip(checkpoints, coefficients, strict=True):
        before, last = last, checkpoint.tensors("ema")
        if before and _shapes(before) != _shapes(last):
            raise ValueError(
                f"{checkpoint.folder.absolute()} is of another network than the checkpoint before: remove it."
            )
        for name, tensor in last.items():
            if tensor.is_floating_point():
                total.setdefault(name, torch.zeros_like(tensor, dtype=torch.float64)).add_(tensor, alpha=coefficient)
    return {name: total[name].to(tensor.dtype) if name in total else tensor for name, tensor in last.items()}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def run_of_length(run: Run, checkpoints: Sequence[Checkpoint], length: float, fit: Combination, folder: Path) -> Run:
    """A run folder whose only checkpoint is the EMA of this length; the one that is there, if it is of the same
    checkpoints.

    Raises:
        ValueError: there is something else at `folder`.
    """
    made_from = [{"images": each.images, "ema_sha256": each.digest("ema")} for each in checkpoints]
    if is_run(folder):
        kept = open_run(folder, type(run.config.network)).last_good()
        if kept is None or kept.state.get("made_from") != made_from:
            raise ValueError(f"{folder.absolute()} was made from other checkpoints: give another --out, or remove it.")
        return Run(folder, run.config)
    state = {
        "ema_length": length,
        "ema_profile_error": fit.error,
        "ema_of": made_from[-1]["ema_sha256"],
        "run": str(run.folder.absolute()),
        "made_from": made_from,
        "coefficients": fit.coefficients,
    }
    with atomic_path(folder) as temporary:
        made = create_run(temporary, run.config)
        made.save(checkpoints[-1].images, {"ema": combined(checkpoints, fit.coefficients)}, state, keep=1)
    return Run(folder, run.config)
