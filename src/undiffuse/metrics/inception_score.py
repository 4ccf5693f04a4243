"""The Inception Score of class logits (Salimans et al. 2016)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from undiffuse.metrics.rows import Rows

SEED = 2020
"""torch-fidelity's, so that the splits are the same."""

SPLITS = 10


@dataclass(frozen=True)
class InceptionScore:
    """The mean over random splits."""

    mean: float
    sd: float
    """Standard deviation over the splits."""
    splits: int


def inception_score(logits: Rows, splits: int = SPLITS) -> InceptionScore | None:
    """exp of the mean KL(p(y|x) || p(y)), over shuffled splits. None for fewer images than splits."""
    n = len(logits)
    if n < splits:
        return None
    shuffled, scores = np.random.RandomState(SEED).permutation(n), []
    for i in range(splits):
        indices = np.sort(shuffled[i * n // splits : (i + 1) * n // splits])
        log_p = log_softmax(logits[indices].astype(np.float64), axis=1)
        p = np.exp(log_p)
        scores.append(np.exp((p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1).mean()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), splits)
