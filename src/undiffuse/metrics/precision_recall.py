"""What nearest neighbors say: precision and recall, density and coverage, and what was learned by heart."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from undiffuse.features.cache import Rows
from undiffuse.utils.terminal import track

K = 3
"""Neighbors for precision and recall (Kynkaanniemi et al. 2019)."""

K_DENSITY = 5
"""Neighbors for density and coverage (Naeem et al. 2020)."""

BLOCK = 2048
"""Rows whose distances to as many others are in memory at once."""


@dataclass(frozen=True)
class Nearest:
    """The nearest image of a set to each of others."""

    index: Int[Tensor, " n"]
    distance: Float[Tensor, " n"]


@dataclass(frozen=True)
class Radii:
    """How far each image's own neighbors are."""

    first: Float[Tensor, " n"]
    """To the nearest other one."""
    k: Float[Tensor, " n"]
    k_density: Float[Tensor, " n"]


@dataclass(frozen=True)
class Neighborhood:
    """How real and fake images lie among one another."""

    precision: float
    """Share of the fakes that lie among the real ones: within the k-th neighbor's distance of any."""
    recall: float
    """Share of the real ones that lie among the fakes."""
    density: float
    """In how many real images' balls a fake lies, over k; may exceed 1."""
    density_error: float
    """Standard error of that."""
    coverage: float
    """Share of the real ones in whose ball a fake lies."""
    authentic: float
    """Share of the fakes that are farther from their nearest real image than that is from its own neighbor."""
    nearest: Nearest
    """The nearest real image to each fake."""
    is_precise: Bool[Tensor, " m"]


def radii(rows: Rows, device: torch.device) -> Radii:
    """Distances to the 1st, K-th and K_DENSITY-th neighbor, itself not counted; infinite where there are too few."""
    wanted = (1, K, K_DENSITY)
    found = []
    center = _centre(rows)
    for start, block in _tracked(rows, "neighbors of each image"):
        best = torch.full((len(block), K_DENSITY), math.inf, device=device)
        x = _placed(block, center, device)
        for start_y, block_y in _blocks(rows):
            distances = torch.cdist(x, _placed(block_y, center, device))
            if start == start_y:
                distances.fill_diagonal_(math.inf)
            taken = min(K_DENSITY, distances.shape[1])
            best = torch.cat([best, distances.topk(taken, largest=False).values], dim=1)
            best = best.topk(K_DENSITY, largest=False).values
        found.append(best.sort(dim=1).values[:, [k - 1 for k in wanted]].cpu())
    return Radii(*torch.cat(found).unbind(dim=1))


def neighborhood(real: Rows, fake: Rows, of_real: Radii, of_fake: Radii, device: torch.device) -> Neighborhood | None:
    """All in one pass over the distances of fakes and real images; None with too few of either for K_DENSITY."""
    if min(len(real), len(fake)) <= K_DENSITY:
        return None
    center = _centre(real)
    precise, balls = torch.zeros(len(fake), dtype=torch.bool), torch.zeros(len(fake))
    recalled, covered = torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    nearest = _Nearest(len(fake))
    for start, block in _tracked(fake, "real images around each sample"):
        mine = slice(start, start + len(block))
        x, my_radii = _placed(block, center, device), of_fake.k[mine, None].to(device)
        for start_y, block_y in _blocks(real):
            its = slice(start_y, start_y + len(block_y))
            distances = torch.cdist(x, _placed(block_y, center, device))
            precise[mine] |= (distances <= of_real.k[its].to(device)).any(dim=1).cpu()
            recalled[its] |= (distances <= my_radii).any(dim=0).cpu()
            within = distances < of_real.k_density[its].to(device)
            balls[mine] += within.sum(dim=1).cpu()
            covered[its] |= within.any(dim=0).cpu()
            nearest.see(mine, start_y, distances)
    density = balls.double() / K_DENSITY
    found = nearest.found
    return Neighborhood(
        precision=precise.double().mean().item(),
        recall=recalled.double().mean().item(),
        density=density.mean().item(),
        density_error=density.std().item() / len(fake) ** 0.5,
        coverage=covered.double().mean().item(),
        # AuthPct (Alaa et al. 2022, section 4.3).
        authentic=(found.distance > of_real.first[found.index]).double().mean().item(),
        nearest=found,
        is_precise=precise,
    )


def nearest(queries: Rows, among: Rows, device: torch.device) -> Nearest:
    """For each of `queries` the nearest of `among`."""
    center, found = _centre(among), _Nearest(len(queries))
    for start, block in _tracked(queries, "nearest training images"):
        x = _placed(block, center, device)
        for start_y, block_y in _blocks(among):
            found.see(slice(start, start + len(block)), start_y, torch.cdist(x, _placed(block_y, center, device)))
    return found.found


class _Nearest:
    """The nearest seen so far."""

    def __init__(self, count: int):
        self.found = Nearest(torch.zeros(count, dtype=torch.int64), torch.full((count,), math.inf))

    def see(self, mine: slice, start: int, distances: Tensor) -> None:
        least = distances.min(dim=1)
        values, indices = least.values.cpu(), least.indices.cpu()
        closer = values < self.found.distance[mine]
        self.found.distance[mine] = torch.where(closer, values, self.found.distance[mine])
        self.found.index[mine] = torch.where(closer, indices + start, self.found.index[mine])


def _blocks(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    return ((start, rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK))


def _tracked(rows: Rows, what: str) -> Iterator[tuple[int, np.ndarray]]:
    return track(_blocks(rows), what, -(-len(rows) // BLOCK))


def _centre(rows: Rows) -> Tensor:
    """About where the rows lie: distances from there lose fewer digits than from 0."""
    return torch.from_numpy(np.array(rows[:BLOCK], dtype=np.float32)).mean(dim=0)


def _placed(rows: np.ndarray, center: Tensor, device: torch.device) -> Tensor:
    return (torch.from_numpy(np.array(rows, dtype=np.float32)) - center).to(device)
