"""Recorded results of reference implementations: every array must be read, and is compared within a bound."""

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("UNDIFFUSE_ORACLES", Path(__file__).parents[1] / "oracles")).absolute()


class Recording:
    """The arrays of a file, and which of them have not been read yet."""

    def __init__(self, file: str):
        self.arrays = dict(np.load(FOLDER / file))
        self.left = set(self.arrays)

    def __call__(self, name: str) -> Tensor:
        self.left.discard(name)
        return torch.from_numpy(self.arrays[name])

    def matching(self, pattern: str) -> Iterator[re.Match[str]]:
        """The names that match, in the file's order."""
        return filter(None, [re.fullmatch(pattern, name) for name in self.arrays])


@contextmanager
def recording(file: str) -> Generator[Recording]:
    arrays = Recording(file)
    yield arrays
    assert not arrays.left, "the recording holds arrays that this test does not know"


def close(got: Tensor, recorded: Tensor, bound: Tensor | float) -> None:
    """Compares with a value recorded in float32: each may differ by its bound."""
    excess = ((got.double() - recorded.double()).abs() - bound).max()
    assert excess <= 0, f"off by {float(excess):.3g} more than float32 leaves"


def equal(got: Tensor, recorded: Tensor, scale: float = 1.0) -> None:
    """Compares with a value recorded in float64, of intermediate values of about `scale`."""
    torch.testing.assert_close(got, recorded, rtol=1e-6, atol=1e-12 * scale)
