"""Metrics from nearest neighbors: precision and recall, density and coverage, AuthPct."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from undiffuse.metrics.rows import Rows
from undiffuse.metrics.watch import Watch, plain

K = 3
"""Neighbors for precision and recall (Kynkaanniemi et al. 2019)."""

K_DENSITY = 5
"""Neighbors for density and coverage (Naeem et al. 2020)."""

BLOCK = 2048
"""The distances of this many rows to as many others are in memory at once."""


@dataclass(frozen=True)
class Nearest:
    """The nearest image of a reference set to each of n images."""

    index: Int[Tensor, " n"]
    """Its index in the reference set."""
    distance: Float[Tensor, " n"]


@dataclass(frozen=True)
class Radii:
    """Distance from each image to its neighbors in its own set."""

    first: Float[Tensor, " n"]
    """To the nearest one."""
    k: Float[Tensor, " n"]
    """To the K-th."""
    k_density: Float[Tensor, " n"]
    """To the K_DENSITY-th."""


@dataclass(frozen=True)
class Neighborhood:
    """How real and generated images are mixed. An image's ball reaches to its k-th neighbor in its own set."""

    precision: float
    """Fraction of the generated images that are in the ball of any real image."""
    recall: float
    """Fraction of the real images that are in the ball of any generated image."""
    density: float
    """Average number of real images' balls that a generated image is in, over k; may exceed 1."""
    density_error: float
    """Standard error of the density."""
    coverage: float
    """Fraction of the real images whose ball contains a generated image."""
    authentic: float
    """Fraction of the generated images that are farther from their nearest real image than that image is from its own
    nearest neighbor."""
    nearest: Nearest
    """The nearest real image to each generated image."""
    is_precise: Bool[Tensor, " m"]
    """Whether each generated image is in the ball of any real image."""


def radii(rows: Rows, device: torch.device, watch: Watch = plain) -> Radii:
    """Distances to the 1st, K-th and K_DENSITY-th neighbor other than itself; infinite if there are too few."""
    found = []
    center = _center(rows)
    for start, block in _watched(rows, "neighbors of each image", watch):
        best = torch.full((len(block), K_DENSITY), math.inf, device=device)
        x = _centered(block, center, device)
        for start_y, block_y in _blocks(rows):
            distances = torch.cdist(x, _centered(block_y, center, device))
            if start == start_y:
                distances.fill_diagonal_(math.inf)
            count = min(K_DENSITY, distances.shape[1])
            best = torch.cat([best, distances.topk(count, largest=False).values], dim=1)
            best = best.topk(K_DENSITY, largest=False).values
        found.append(best.sort(dim=1).values[:, [k - 1 for k in (1, K, K_DENSITY)]].cpu())
    return Radii(*torch.cat(found).unbind(dim=1))


def neighborhood(
    real: Rows, fake: Rows, real_radii: Radii, fake_radii: Radii, device: torch.device, watch: Watch = plain
) -> Neighborhood | None:
    """All metrics in one pass over the distances; None if there are not more than K_DENSITY images of each kind."""
    if min(len(real), len(fake)) <= K_DENSITY:
        return None
    center = _center(real)
    precise, balls = torch.zeros(len(fake), dtype=torch.bool), torch.zeros(len(fake))
    recalled, covered = torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    running = _RunningNearest(len(fake))
    for start, block in _watched(fake, "real images around each sample", watch):
        fakes = slice(start, start + len(block))
        x, x_radii = _centered(block, center, device), fake_radii.k[fakes, None].to(device)
        for start_y, block_y in _blocks(real):
            reals = slice(start_y, start_y + len(block_y))
            distances = torch.cdist(x, _centered(block_y, center, device))
            precise[fakes] |= (distances <= real_radii.k[reals].to(device)).any(dim=1).cpu()
            recalled[reals] |= (distances <= x_radii).any(dim=0).cpu()
            within = distances < real_radii.k_density[reals].to(device)
            balls[fakes] += within.sum(dim=1).cpu()
            covered[reals] |= within.any(dim=0).cpu()
            running.update(fakes, start_y, distances)
    density = balls.double() / K_DENSITY
    found = running.nearest
    return Neighborhood(
        precision=precise.double().mean().item(),
        recall=recalled.double().mean().item(),
        density=density.mean().item(),
        density_error=density.std().item() / len(fake) ** 0.5,
        coverage=covered.double().mean().item(),
        # AuthPct (Alaa et al. 2022, section 4.3).
        authentic=(found.distance > real_radii.first[found.index]).double().mean().item(),
        nearest=found,
        is_precise=precise,
    )


def nearest(queries: Rows, reference: Rows, device: torch.device, watch: Watch = plain) -> Nearest:
    """The nearest row of `reference` to each of `queries`."""
    center, running = _center(reference), _RunningNearest(len(queries))
    for start, block in _watched(queries, "nearest training images", watch):
        x = _centered(block, center, device)
        for start_y, block_y in _blocks(reference):
            distances = torch.cdist(x, _centered(block_y, center, device))
            running.update(slice(start, start + len(block)), start_y, distances)
    return running.nearest


class _RunningNearest:
    """The nearest rows among the blocks so far."""

    def __init__(self, count: int):
        self.nearest = Nearest(torch.zeros(count, dtype=torch.int64), torch.full((count,), math.inf))

    def update(self, queries: slice, start: int, distances: Tensor) -> None:
        """Takes the distances of some queries to the reference rows from `start` on."""
        block = distances.min(dim=1)
        values, indices = block.values.cpu(), block.indices.cpu()
        closer = values < self.nearest.distance[queries]
        self.nearest.distance[queries] = torch.where(closer, values, self.nearest.distance[queries])
        self.nearest.index[queries] = torch.where(closer, indices + start, self.nearest.index[queries])


def _blocks(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    return ((start, rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK))


def _watched(rows: Rows, what: str, watch: Watch) -> Iterable[tuple[int, np.ndarray]]:
    return watch(_blocks(rows), what, -(-len(rows) // BLOCK))


def _center(rows: Rows) -> Tensor:
    """Roughly the middle of the rows: distances lose fewer digits if coordinates are small."""
    return torch.from_numpy(np.array(rows[:BLOCK], dtype=np.float32)).mean(dim=0)


def _centered(rows: np.ndarray, center: Tensor, device: torch.device) -> Tensor:
    return (torch.from_numpy(np.array(rows, dtype=np.float32)) - center).to(device)
