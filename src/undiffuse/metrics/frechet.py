"""The Frechet distance of two sets of features (Heusel et al. 2017): FID if the features are Inception's.

    d^2 = |mu_1 - mu_2|^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

Let S_1 = A A^T and S_2 = B B^T, with A and B from an eigendecomposition. The trace of (S_1 S_2)^(1/2) is then the sum
of the singular values of A^T B. Nothing here can become imaginary, the distance from a set to itself is 0, and the
distance is symmetric, however few images there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.metrics.rows import Rows
from undiffuse.metrics.watch import Watch, plain

BLOCK = 4096
"""Rows in memory at once as float64."""

EXTRAPOLATED_FROM = 5000
"""The fewest samples in Chong & Forsyth's regression; half of the samples if there are fewer than twice as many."""

EXTRAPOLATION_POINTS = 10

FEWEST_TO_EXTRAPOLATE = 500
"""With fewer samples the line is mostly noise and may well end below 0."""


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance (over N - 1) of features; the covariance is factor @ factor.T."""

    mean: Float[Tensor, " d"]
    factor: Float[Tensor, "d r"]


def gaussian(rows: Rows, indices: np.ndarray | None = None) -> Gaussian:
    """Fits a Gaussian to the rows, or to those with the given indices, in float64 and a block of rows at a time.

    Raises:
        ValueError: there are fewer than two rows.
    """
    d = rows.shape[1]
    indices = np.arange(len(rows)) if indices is None else indices
    n = len(indices)
    if n < 2:
        raise ValueError("One image has no covariance: give at least 2 real and 2 generated images.")
    mean = torch.zeros(d, dtype=torch.float64)
    for block in _blocks(rows, indices):
        mean += _double(block).sum(dim=0) / n
    if n <= d:  # The centered rows are a smaller factor than d eigenvectors, and exact.
        return Gaussian(mean, (_double(rows[indices]) - mean).T / (n - 1) ** 0.5)
    covariance = torch.zeros(d, d, dtype=torch.float64)
    for block in _blocks(rows, indices):
        centered = _double(block) - mean
        covariance += centered.T @ centered
    values, vectors = torch.linalg.eigh(covariance / (n - 1))
    return Gaussian(mean, vectors * values.clamp(min=0).sqrt())


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared distance d^2, which is what FID reports."""
    overlap = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    squared = (a.mean - b.mean).square().sum() + a.factor.square().sum() + b.factor.square().sum() - 2 * overlap
    return float(squared.clamp(min=0))


@dataclass(frozen=True)
class Extrapolation:
    """A line fitted to the distances at several N, as a function of 1/N (Chong & Forsyth 2020, section 4)."""

    counts: tuple[int, ...]
    distances: tuple[float, ...]
    at_infinity: float
    """Where the line meets 1/N = 0."""
    standard_error: float
    """Standard error of `at_infinity`, from the fit of the line only.

    It does not include the variation between samples: the points come from overlapping subsets of the same samples, so
    they vary together and this error is too small.
    """
    slope: float
    scatter: float
    """Standard deviation of the distances about the line."""


def extrapolate(real: Gaussian, fake: Rows, seed: int = 0, watch: Watch = plain) -> Extrapolation | None:
    """Estimates the distance that infinitely many samples would have from `real`. None if there are too few samples."""
    n = len(fake)
    if n < FEWEST_TO_EXTRAPOLATE:
        return None
    counts = np.linspace(min(EXTRAPOLATED_FROM, n // 2), n, EXTRAPOLATION_POINTS).round().astype(int)
    rng = np.random.default_rng(seed)
    distances = []
    for count in watch(counts, "extrapolating to infinitely many samples", len(counts)):
        indices = np.sort(rng.choice(n, count, replace=False))
        distances.append(frechet_distance(real, gaussian(fake, indices)))
    return fit_line(counts, np.array(distances))


def fit_line(counts: np.ndarray, distances: np.ndarray) -> Extrapolation:
    """Fits the distances as a linear function of 1/N by least squares."""
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
