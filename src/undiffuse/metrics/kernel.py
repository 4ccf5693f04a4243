"""The kernel distance of two sets of features (Binkowski et al. 2018): KID if the features are Inception's."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from undiffuse.metrics.rows import Rows
from undiffuse.metrics.watch import Watch, plain

SEED = 2020
"""torch-fidelity's, so that the subsets are the same."""

SUBSETS, SUBSET_SIZE = 100, 1000


@dataclass(frozen=True)
class KernelDistance:
    """The mean over random subsets."""

    mean: float
    sd: float
    """Standard deviation over the subsets."""
    subsets: int
    subset_size: int


def kernel_distance(
    real: Rows, fake: Rows, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, watch: Watch = plain
) -> KernelDistance | None:
    """The squared maximum mean discrepancy with a cubic kernel, unbiased (Binkowski et al. 2018, section 4).

    Averaged over random subsets, which are smaller if there are fewer images. None for fewer than two images.
    """
    size = min(subset_size, len(real), len(fake))
    if size < 2:
        return None
    rng = np.random.RandomState(SEED)
    values = []
    for _ in watch(range(subsets), "kernel distance", subsets):
        x = fake[rng.choice(len(fake), size, replace=False)].astype(np.float64)
        y = real[rng.choice(len(real), size, replace=False)].astype(np.float64)
        values.append(_squared_discrepancy(x, y))
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def _squared_discrepancy(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "m d"]) -> float:
    """Gretton et al. 2012, Eq. 3: no image is compared with itself."""
    m = len(x)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
