"""undiffuse tune-sampler"""

from typing import Annotated

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.runs.find import find_run
from undiffuse.utils.names import TunedSampler
from undiffuse.utils.parsing import at_least, parse_interval
from undiffuse.utils.terminal import loading


def tune_sampler(
    run: Annotated[str | None, tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = None,
    steps: int = 6,
    sampler: TunedSampler = "ipndm",
    guidance: Annotated[float | None, unless_given("the run's")] = None,
    guidance_interval: Annotated[str | None, unless_given("everywhere", metavar="LOW-HIGH")] = None,
    minutes: float = 8,
) -> None:
    """Find the noise levels that make the most of few steps, for one model.

    They are kept in the run. From then on, sample, evaluate, compare and the studio use them for this sampler and
    number of steps, and say so; --set sigmas=karras takes the usual ones. The same command again goes on where it was
    interrupted.

    For example: undiffuse tune-sampler RUN --steps 6

    Args:
        run: A run folder, its name under runs/, or a model that comes with undiffuse, such as digits.
        steps: Of the sampler.
        sampler: ipndm, dpmpp_2m and heun are tuned to follow the run's own sampling in many steps; ancestral to lower
            the bound on the bits/dim of its images, for runs with a discrete schedule.
        guidance: The levels are for this guidance, and are used with it alone.
        guidance_interval: Likewise.
        minutes: About how long it may take; more of them look at more images.
    """
    find_run(run)
    at_least(2, steps=steps)
    if guidance_interval is not None:
        parse_interval(guidance_interval)
    if not minutes > 0:
        raise ValueError(f"--minutes {minutes:g} leaves no time: give more than 0.")

    with loading():
        from undiffuse import api

    api.tune_sampler(
        run, steps=steps, sampler=sampler, guidance=guidance, guidance_interval=guidance_interval, minutes=minutes
    )
