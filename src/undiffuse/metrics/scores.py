"""Two scores of features: the kernel distance, KID on Inception's, and the Inception Score."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from undiffuse.features.cache import Rows
from undiffuse.utils.terminal import track

SEED = 2020
"""torch-fidelity's, so that subsets and splits are the same as its own."""

SUBSETS, SUBSET_SIZE = 100, 1000
SPLITS = 10


@dataclass(frozen=True)
class Score:
    mean: float
    sd: float
    """Over the subsets or splits."""
    parts: int
    part_size: int


def kernel_distance(real: Rows, fake: Rows, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE) -> Score | None:
    """The squared maximum mean discrepancy of a cubic kernel, unbiased (Binkowski et al. 2018, section 4).

    Averaged over random subsets, which are smaller where there are fewer images; None for fewer than two.
    """
    size = min(subset_size, len(real), len(fake))
    if size < 2:
        return None
    rng = np.random.RandomState(SEED)
    values = []
    for _ in track(range(subsets), "kernel distance", subsets):
        x = fake[rng.choice(len(fake), size, replace=False)].astype(np.float64)
        y = real[rng.choice(len(real), size, replace=False)].astype(np.float64)
        values.append(_squared_discrepancy(x, y))
    return Score(float(np.mean(values)), float(np.std(values)), subsets, size)


def _squared_discrepancy(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "m d"]) -> float:
    """Gretton et al. 2012, Eq. 3: an image is not compared with itself."""
    m = len(x)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def inception_score(logits: Rows, splits: int = SPLITS) -> Score | None:
    """exp of the mean KL(p(y|x) || p(y)) (Salimans et al. 2016), over shuffled splits; None for fewer than ten."""
    n = len(logits)
    if n < splits:
        return None
    shuffled, scores = np.random.RandomState(SEED).permutation(n), []
    for i in range(splits):
        chosen = np.sort(shuffled[i * n // splits : (i + 1) * n // splits])
        log_p = log_softmax(logits[chosen].astype(np.float64), axis=1)
        p = np.exp(log_p)
        scores.append(np.exp((p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1).mean()))
    return Score(float(np.mean(scores)), float(np.std(scores)), splits, n // splits)
