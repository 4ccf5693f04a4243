"""The settings with which training goes on from a run to a student of it that needs one or two steps."""

import math
from typing import Any

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion.consistency import SIGMA_DATA, SIGMA_MEAN, SIGMA_STD

RATE = 1 / 4
"""The learning rate, as a fraction of the one with which the run, or the first that it started from, was trained."""

WARMUP_IMAGES = 1000
"""At most."""

DECAY_FRACTION = 0.2
"""The released code keeps the learning rate constant, for budgets a hundred times larger; here the end is lowered."""

STEPS = 2
"""Of a student, by default."""


def student_settings(source: Config, name: str) -> dict[str, Any]:
    """The settings that differ from the source's, as `--set` takes them; the same again for a student of its own.

    `name` is the source's, for the message.

    Raises:
        ValueError: the source cannot be distilled.
    """
    diffusion = source.diffusion
    if diffusion.learned_variance:
        raise ValueError(
            f"{name} learned the variance of DDPM's steps too (objective {diffusion.objective}), which a student has "
            "no use for: give a run that was trained with objective simple."
        )
    first_rate = source.origin.learning_rate if source.origin else None
    return {
        "optimizer.learning_rate": RATE * (first_rate or source.optimizer.learning_rate),
        "optimizer.warmup_images": min(source.optimizer.warmup_images, WARMUP_IMAGES),
        "optimizer.decay_fraction": DECAY_FRACTION,
        "diffusion.objective": "consistency",
        "diffusion.weight": "none",
        "diffusion.sigma_sampler": "log_normal",
        # The released code's noise levels are for images of standard deviation 0.5.
        "diffusion.sigma_mean": round(SIGMA_MEAN + math.log(diffusion.sigma_data / SIGMA_DATA), 4),
        "diffusion.sigma_std": SIGMA_STD,
        "sampling.sampler": "consistency",
        "sampling.sigmas": SamplingConfig.sigmas,
        "sampling.steps": STEPS,
        "sampling.guidance": 1.0,
        "sampling.guidance_interval": None,
        "sampling.clip": False,
        "sampling.variance": "auto",
    }
