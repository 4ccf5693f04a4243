"""Several runs and samplers compared: the same reference, equally many samples, the same seeds."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from undiffuse.config import SamplingConfig
from undiffuse.data.pixels import to_nchw
from undiffuse.evaluation import protocol
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.metrics import Measurement, compute_metrics
from undiffuse.evaluation.numbers import finite, number, with_spread
from undiffuse.evaluation.pages import plots, sections
from undiffuse.evaluation.samples import run_samples
from undiffuse.features.image_sets import ImageSet
from undiffuse.report import grids, page
from undiffuse.runs.run import Run
from undiffuse.sampling.model import Model
from undiffuse.utils.files import write_atomically
from undiffuse.utils.terminal import log

VERSION = 2
"""Of comparison.json."""

SHOWN = 12
"""Samples of each that the page shows, of the same seeds."""

OMITTED = ("AuthPct",)
"""Metrics that the table leaves out: this one is about memorization, and comparison.json has it."""


@dataclass(frozen=True)
class Candidate:
    """A model with one way to sample it."""

    label: str
    """The run's name, or its folder if several runs have that name."""
    model: Model
    sampling: SamplingConfig

    @property
    def name(self) -> str:
        return f"{self.label}, {self.sampling.sampler}"


@dataclass(frozen=True)
class Entry:
    """A candidate and its metrics: a row of the table."""

    candidate: Candidate
    made_by: dict[str, Any]
    measurement: Measurement

    def value(self, metric: str) -> float | None:
        """The value of a metric; None if it was not computed."""
        found = self.measurement.find(metric)
        return None if found is None else found.value

    @property
    def title(self) -> str:
        return f"{self.candidate.name}, {self.candidate.sampling.steps} steps"

    @property
    def row(self) -> dict[str, Any]:
        """What tells it apart."""
        sampling, checkpoint = self.candidate.sampling, self.candidate.model.checkpoint
        return {
            "run": self.candidate.label,
            "images seen": f"{checkpoint.images:,}" if checkpoint else "",
            "weights": self.candidate.model.weights,
            "sampler": sampling.sampler,
            "steps": sampling.steps,
            "guidance": _guidance(self.candidate),
            "NFE": self.made_by["nfe"],
        }


def _guidance(candidate: Candidate) -> str:
    sampling, guide = candidate.sampling, candidate.model.guide
    interval = "" if sampling.guidance_interval is None else " at {:g}-{:g}".format(*sampling.guidance_interval)
    by = "" if guide is None else " by {.name} after {.images:,}".format(*guide.origin)
    return f"{sampling.guidance:g}{interval}{by}"


@dataclass(frozen=True)
class Comparison:
    """The entries of a comparison, as a table.

    Example:
        comparison = undiffuse.compare(["runs/flowers"], steps=[5, 10], features="pixels")
        comparison.rows[0]["steps"], comparison.rows[0]["FD-pixels"]
        comparison.best.candidate.sampling
        comparison.write("results")  # comparison.html and comparison.json
    """

    entries: tuple[Entry, ...]
    """Under torchrun empty in all but the main process."""

    @property
    def metrics(self) -> list[str]:
        """The metrics of the table."""
        names = dict.fromkeys(v.metric for entry in self.entries for v in entry.measurement.values)
        return [name for name in names if name not in OMITTED]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary an entry: run, sampler, steps, guidance, NFE, and the value of each metric."""
        return [entry.row | {name: entry.value(name) for name in self.metrics} for entry in self.entries]

    @property
    def best(self) -> Entry:
        """The entry with the smallest Frechet distance; one whose distance is not finite is never better.

        Raises:
            ValueError: there are no entries.
        """
        distances = [entry.value(self._distance) for entry in self.entries]
        return self.entries[int(np.argmin([math.inf if each is None else each for each in distances]))]

    @property
    def why(self) -> str:
        """Why the FID can, or cannot, be compared with published values, in a sentence."""
        return protocol.verdict(self.entries[0].measurement)[1] if self.entries else "The main process has the values."

    @property
    def _distance(self) -> str:
        return self.entries[0].measurement.fake.network.distance

    def to_dict(self) -> dict[str, Any]:
        """What comparison.json holds; numbers that are not finite are None."""
        if not self.entries:
            return {}
        first = self.entries[0].measurement
        return finite(
            {
                "version": VERSION,
                "why": self.why,
                "protocol": {
                    **protocol.network_protocol(first.fake.network),
                    "reference": protocol.reference_protocol(first),
                    "versions": protocol.package_versions(),
                },
                "entries": [
                    {**entry.made_by, "metrics": [asdict(value) for value in entry.measurement.values]}
                    for entry in self.entries
                ],
            }
        )

    def write(self, folder: str | Path) -> Path:
        """Writes comparison.json and comparison.html into the folder, and returns the page's path."""
        folder = Path(folder).expanduser()
        report = folder / "comparison.html"
        if not self.entries:
            return report
        content, first, best = self.to_dict(), self.entries[0].measurement, self.best
        write_atomically(folder / "comparison.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        lead = (
            f"{len(first.fake):,} samples each, of the same seeds, against {first.real.images.description}. {self.why}"
        )
        lowest = best.value(self._distance)
        headline = [
            (f"lowest {self._distance}", "none" if lowest is None else number(lowest)),
            ("reached by", best.title),
        ]
        page.write_page(report, "Runs and samplers compared", lead, headline, self._sections(content))
        return report

    def _sections(self, content: dict[str, Any]) -> list[page.Section]:
        plot = page.from_plot(lambda: plots.distance_by_nfe(self._curves(), self._distance), "Lower is better.")
        strips = [page.from_image(_strip(entry.measurement.fake.images), entry.title) for entry in self.entries]
        return [
            self._table(),
            page.Section(
                "Against the number of function evaluations (NFE)",
                "What more function evaluations buy. A step of heun takes two, and guidance one more each.",
                [plot],
                side_by_side=True,
            ),
            page.Section("Samples", "The same seeds everywhere, not selected.", strips),
            sections.protocol_section(content["protocol"], "How each entry was made is in comparison.json."),
        ]

    def _table(self) -> page.Section:
        """One row an entry; what is the same in all rows is in the text above the table."""
        rows = [entry.row for entry in self.entries]
        differ = [name for name in rows[0] if len(rows) == 1 or len({row[name] for row in rows}) > 1]
        same = ", ".join(f"{name} {value}" for name, value in rows[0].items() if name not in differ)
        caution = "Differences within the spreads mean nothing; comparison.json has the spreads of all metrics."
        warnings = protocol.warnings([self.entries[0].measurement])
        return page.Section(
            "Table",
            " ".join([*([f"The same for all: {same}."] if same else []), *warnings, caution]),
            head=[*differ, *self.metrics],
            rows=[
                [*(row[name] for name in differ), *(_cell(entry.measurement, metric) for metric in self.metrics)]
                for row, entry in zip(rows, self.entries, strict=True)
            ],
        )

    def _curves(self) -> dict[str, list[tuple[int, float]]]:
        curves: dict[str, list[tuple[int, float]]] = {}
        for entry in self.entries:
            value = entry.value(self._distance)
            if value is not None:
                curves.setdefault(entry.candidate.name, []).append((entry.made_by["nfe"], value))
        return curves

    def __str__(self) -> str:
        return "\n".join(
            f"{entry.title}: " + " ".join(f"{n} {v:.4g}" for n in self.metrics if (v := entry.value(n)) is not None)
            for entry in self.entries
        )

    def __repr__(self) -> str:
        return f"Comparison of {len(self.entries)}\n{self}"


def check_same_data(runs: Sequence[Run]) -> None:
    """Raises ValueError if runs were trained on other images or read them differently: no table can compare them."""
    first = runs[0]
    for run in runs[1:]:
        if _data_key(run) != _data_key(first):
            raise ValueError(
                f"{run.folder.absolute()} and {first.folder.absolute()} were trained on other images, or at another "
                "size, fit or number of channels, so their metrics cannot be compared: give runs of the same data."
            )


def _data_key(run: Run) -> tuple[Any, ...]:
    data = run.config.data
    return run.config.data_content, data.split, data.size, data.fit, data.channels


def compare_candidates(
    candidates: Sequence[Candidate], real: ImageSet, seeds: range, context: EvaluationContext
) -> Comparison:
    """Samples and measures each candidate at the same seeds."""
    reference, entries = context.feature_set(real, is_real=True), []
    for candidate in candidates:
        log.info(f"\n{candidate.name}, {candidate.sampling.steps} steps")
        images, made_by = run_samples(candidate.model, candidate.sampling, seeds, context)
        fake = context.feature_set(images)
        if context.world.is_main:
            entries.append(Entry(candidate, made_by, compute_metrics(reference, fake, context.metrics)))
    return Comparison(tuple(entries))


def _cell(measurement: Measurement, metric: str) -> str:
    found, network = measurement.find(metric), measurement.fake.network
    if found is None:
        return ""
    return with_spread(found.value, found.spread if metric in (network.distance, network.kernel) else None)


def _strip(images: ImageSet):
    return grids.grid(to_nchw(images.read(np.arange(min(SHOWN, len(images))))), columns=SHOWN)
