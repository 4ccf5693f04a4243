"""The settings with which training goes on from a run to a student of it that needs one or two steps."""

import math
from typing import Any

from undiffuse.config import Config, SamplingConfig
from undiffuse.diffusion.consistency import SIGMA_DATA, SIGMA_MEAN, SIGMA_STD

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
    return {
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
