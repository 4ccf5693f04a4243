"""A row of a comparison: a model with one way to sample it, measured at one or more ranges of seeds."""

import statistics
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from undiffuse.config import SamplingConfig
from undiffuse.evaluation.metrics import Measurement, MetricValue
from undiffuse.evaluation.numbers import number, with_spread
from undiffuse.evaluation.samples import seeds_text
from undiffuse.runs.timing import Timing
from undiffuse.sampling.model import Model
from undiffuse.utils.text import plural

OMITTED = ("AuthPct",)
"""Metrics that the table leaves out: this one is about memorization, and comparison.json has it."""

SECONDS = "seconds per image"
EMA_LENGTH = "EMA length"


@dataclass(frozen=True)
class Candidate:
    """A model with one way to sample it."""

    label: str
    """The run's name, or its folder if several runs have that name."""
    model: Model
    sampling: SamplingConfig
    sigmas: str = "auto"
    """The name of the noise schedule: "tuned" for levels that were found for the model, "own" for others."""

    @property
    def sampler(self) -> str:
        """The sampler, and its noise schedule unless it is the usual one."""
        return self.sampling.sampler if self.sigmas == "auto" else f"{self.sampling.sampler}, {self.sigmas}"

    @property
    def name(self) -> str:
        return f"{self.label}, {self.sampler}"

    @property
    def title(self) -> str:
        return f"{self.name}, {plural(self.sampling.steps, 'step')}"


@dataclass(frozen=True)
class LeftOut:
    """A run that one way of sampling does not fit."""

    title: str
    reason: str


@dataclass(frozen=True)
class Repeat:
    """Samples of one range of seeds."""

    seeds: range
    measurement: Measurement
    timing: Timing | None
    """None if the samples were not made in one go."""


@dataclass(frozen=True)
class Entry:
    """A candidate and its metrics: a row of the table."""

    candidate: Candidate
    made_by: dict[str, Any]
    repeats: tuple[Repeat, ...]

    @property
    def measurement(self) -> Measurement:
        """Of the first range of seeds."""
        return self.repeats[0].measurement

    @cached_property
    def values(self) -> tuple[MetricValue, ...]:
        """The metrics. Of several ranges of seeds the means, and how much they differ."""
        if len(self.repeats) == 1:
            return self.measurement.values
        means = []
        for value in self.measurement.values:
            found = [each.measurement.find(value.metric) for each in self.repeats]
            all_values = [each.value for each in found if each is not None]
            if len(all_values) == len(found):
                mean, sd = statistics.mean(all_values), statistics.stdev(all_values)
                means.append(replace(value, value=mean, spread=sd, spread_is=f"sd of {len(found)} ranges of seeds"))
        return tuple(means)

    def find(self, metric: str) -> MetricValue | None:
        """The value of that name, or None."""
        return next((value for value in self.values if value.metric == metric), None)

    def value(self, metric: str) -> float | None:
        """The value of a metric; None if it was not computed."""
        found = self.find(metric)
        return None if found is None else found.value

    @property
    def seconds(self) -> float | None:
        """Seconds of sampling per image; None unless all were measured on the same machine."""
        timings = [repeat.timing for repeat in self.repeats]
        if any(timing is None for timing in timings) or len({timing.machine for timing in timings if timing}) > 1:
            return None
        return statistics.mean(timing.seconds_per_image for timing in timings if timing)

    @property
    def ema_length(self) -> float | None:
        """Of an EMA that was made after training; None for another."""
        checkpoint = self.candidate.model.checkpoint
        return checkpoint.ema_length if checkpoint else None

    @property
    def title(self) -> str:
        return self.candidate.title

    @property
    def row(self) -> dict[str, Any]:
        """What tells it apart, and what it costs."""
        sampling, checkpoint = self.candidate.sampling, self.candidate.model.checkpoint
        return {
            "run": self.candidate.label,
            "images seen": f"{checkpoint.images:,}" if checkpoint else "",
            "weights": self.candidate.model.weights,
            EMA_LENGTH: self.ema_length,
            "sampler": sampling.sampler,
            "sigmas": self.candidate.sigmas,
            "steps": sampling.steps,
            "guidance": _guidance(self.candidate),
            "NFE": self.made_by["nfe"],
            SECONDS: self.seconds,
        }

    def to_dict(self) -> dict[str, Any]:
        """What comparison.json holds of it."""
        repeats = [
            {
                "seeds": seeds_text(repeat.seeds),
                "timing": None if repeat.timing is None else asdict(repeat.timing),
                "metrics": [asdict(value) for value in repeat.measurement.values],
            }
            for repeat in self.repeats
        ]
        all_seeds = range(self.repeats[0].seeds.start, self.repeats[-1].seeds.stop)
        return {
            **self.made_by,
            "seeds": seeds_text(all_seeds),
            "seconds_per_image": self.seconds,
            "metrics": [asdict(value) for value in self.values],
            "repeats": repeats,
        }

    def __str__(self) -> str:
        names = [value.metric for value in self.values if value.metric not in OMITTED]
        seconds = "" if self.seconds is None else f", {number(self.seconds)} s per image"
        metrics = " ".join(f"{name} {self.cell(name)}" for name in names)
        return f"{self.title}: {metrics}; NFE {self.made_by['nfe']}{seconds}"

    def cell(self, metric: str) -> str:
        """The value as the table has it."""
        found, network = self.find(metric), self.measurement.fake.network
        if found is None:
            return ""
        return with_spread(found.value, found.spread if metric in (network.distance, network.kernel) else None)


def _guidance(candidate: Candidate) -> str:
    sampling, guide = candidate.sampling, candidate.model.guide
    interval = "" if sampling.guidance_interval is None else " at {:g}-{:g}".format(*sampling.guidance_interval)
    by = "" if guide is None else " by {.name} after {.images:,}".format(*guide.origin)
    return f"{sampling.guidance:g}{interval}{by}"
