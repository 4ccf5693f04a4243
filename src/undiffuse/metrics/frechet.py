"""The Frechet distance of two sets of features (Heusel et al. 2017), called FID where the features are Inception's.

    d^2 = |mu_1 - mu_2|^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

With S_1 = A A^T and S_2 = B B^T, which the symmetric matrices' eigenvalues give, the last trace is the sum of the
singular values of A^T B. So nothing here can become imaginary, the distance of a set to itself is 0, and it is the same
both ways, however few images there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.features.cache import Rows
from undiffuse.utils.terminal import track

BLOCK = 4096
"""Rows that are in memory at once as float64."""

EXTRAPOLATED_FROM = 5000
"""The fewest samples in Chong & Forsyth's regression; half of them where there are not twice as many."""

EXTRAPOLATION_POINTS = 10

FEWEST_TO_EXTRAPOLATE = 500
"""With fewer the line is mostly noise, and may well end below 0."""


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance (with N - 1) of features, the covariance as factor @ factor.T."""

    mean: Float[Tensor, " d"]
    factor: Float[Tensor, "d r"]


def gaussian(rows: Rows, chosen: np.ndarray | None = None) -> Gaussian:
    """Fitted to the rows, or to those of the indices `chosen`; they are read a block at a time. In float64.

    Raises:
        ValueError: there are fewer than two.
    """
    n, d = len(rows) if chosen is None else len(chosen), rows.shape[1]
    indices = np.arange(n) if chosen is None else chosen
    if n < 2:
        raise ValueError(f"{n} images have no covariance: give at least 2 on each side.")
    mean = torch.zeros(d, dtype=torch.float64)
    for block in _blocks(rows, indices):
        mean += _double(block).sum(dim=0) / n
    if n <= d:  # Fewer numbers, and exact.
        return Gaussian(mean, (_double(rows[indices]) - mean).T / (n - 1) ** 0.5)
    covariance = torch.zeros(d, d, dtype=torch.float64)
    for block in _blocks(rows, indices):
        centered = _double(block) - mean
        covariance += centered.T @ centered
    values, vectors = torch.linalg.eigh(covariance / (n - 1))
    return Gaussian(mean, vectors * values.clamp(min=0).sqrt())


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    overlap = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    squared = (a.mean - b.mean).square().sum() + a.factor.square().sum() + b.factor.square().sum() - 2 * overlap
    return float(squared.clamp(min=0))


@dataclass(frozen=True)
class Extrapolation:
    """The line through distances at several N, over 1/N (Chong & Forsyth 2020, section 4)."""

    counts: tuple[int, ...]
    distances: tuple[float, ...]
    at_infinity: float
    """Where the line meets 1/N = 0."""
    standard_error: float
    """Of that, as far as the line's fit goes: how well the points lie on it.

    Not of another draw of samples: the points are of subsets of the same ones, which overlap, so they vary together and
    this is too small.
    """
    slope: float
    scatter: float
    """Standard deviation of the distances about the line."""


def extrapolate(real: Gaussian, fake: Rows, seed: int = 0) -> Extrapolation | None:
    """The distance that infinitely many samples would have to `real`; None for too few samples."""
    n = len(fake)
    if n < FEWEST_TO_EXTRAPOLATE:
        return None
    counts = np.linspace(min(EXTRAPOLATED_FROM, n // 2), n, EXTRAPOLATION_POINTS).round().astype(int)
    rng = np.random.default_rng(seed)
    distances = []
    for count in track(counts, "extrapolating to infinitely many samples", len(counts)):
        chosen = np.sort(rng.choice(n, count, replace=False))
        distances.append(frechet_distance(real, gaussian(fake, chosen)))
    return fit_line(counts, np.array(distances))


def fit_line(counts: np.ndarray, distances: np.ndarray) -> Extrapolation:
    """Least squares of the distances over 1/N."""
    x = 1 / counts
    slope, intercept = np.polyfit(x, distances, 1)
    scatter = float(np.sqrt(np.square(distances - intercept - slope * x).sum() / (len(x) - 2)))
    spread_x = np.square(x - x.mean()).sum()
    error = scatter * np.sqrt(1 / len(x) + x.mean() ** 2 / spread_x)
    return Extrapolation(
        counts=tuple(int(count) for count in counts),
        distances=tuple(float(distance) for distance in distances),
        at_infinity=float(intercept),
        standard_error=float(error),
        slope=float(slope),
        scatter=scatter,
    )


def _blocks(rows: Rows, indices: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[indices[start : start + BLOCK]] for start in range(0, len(indices), BLOCK))


def _double(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.float64))
