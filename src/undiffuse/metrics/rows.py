"""The arrays that metrics take."""

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "_ d"]
"""One row of features for each image, usually float32. May be mapped from disk: it is read a block at a time."""
