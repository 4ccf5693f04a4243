"""The profile of an EMA: how much the weights of each moment of training count in it, a density over the images seen.

An EMA whose half-life grows with the images seen has the profile of a power function, and its length is the same
fraction of the training at all times (Karras et al. 2024, EDM2, arXiv 2312.02696, section 3.1). One whose half-life has
stopped growing forgets at a constant rate.
"""

import numpy as np
from jaxtyping import Float64

EMA_RAMPUP_RATIO = 0.05
"""The half-life never exceeds this fraction of the images seen, so that a young EMA is not the initial weights
(Karras et al. 2022, released code: `ema_rampup_ratio`)."""

MOMENTS = 20_000
"""Of the training, at the middle of equal parts: what profiles are integrated over."""

Profile = Float64[np.ndarray, " moments"]


def ema_halflife(total_images: int, halflife_images: float) -> float:
    """In images, after `total_images`, where it grows to `halflife_images`."""
    return min(halflife_images, total_images * EMA_RAMPUP_RATIO)


def moments(total_images: int) -> Profile:
    """Images seen at the middle of each of many equal parts of the training."""
    return (np.arange(MOMENTS) + 0.5) * (total_images / MOMENTS)


def ema_profile(images: Profile, snapshot_images: int, halflife_images: float) -> Profile:
    """How much each moment, after so many `images`, counts in the EMA as it was after `snapshot_images`.

    The EMA moves toward the weights at the rate r = ln 2 / half-life, and its profile is
    p(t) = r(t) exp(-integral of r from t to the snapshot), and 0 for what came later.
    """
    full = halflife_images / EMA_RAMPUP_RATIO  # Images seen when the half-life stops growing.

    def integral(t: Profile) -> Profile:
        """Of the rate, from there."""
        growing = np.log(np.minimum(t, full) / full) / EMA_RAMPUP_RATIO
        return np.log(2) * (growing + np.maximum(t - full, 0) / halflife_images)

    rate = np.log(2) / np.minimum(halflife_images, EMA_RAMPUP_RATIO * images)
    profile = rate * np.exp(np.minimum(integral(images) - integral(np.array([float(snapshot_images)])), 0))
    return np.where(images <= snapshot_images, profile, 0.0)


def power_function_profile(images: Profile, total_images: int, length: float) -> Profile:
    """The density (gamma + 1) t^gamma / T^(gamma + 1) of this length, of a training of T = `total_images` images."""
    exponent = _exponent(length)
    return (exponent + 1) / total_images * (images / total_images) ** exponent


def ema_length(total_images: int, halflife_images: float) -> float:
    """The standard deviation of the EMA's profile as a fraction of the images seen: EDM2's sigma_rel."""
    images = moments(total_images)
    profile = ema_profile(images, total_images, halflife_images)
    weights = profile / profile.sum()
    mean = (weights * images).sum()
    return float(np.sqrt((weights * (images - mean) ** 2).sum()) / total_images)


def _exponent(length: float) -> float:
    """The gamma whose profile is so long: the root of length^2 (gamma + 2)^2 (gamma + 3) = gamma + 1."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())
