"""What an evaluation found: values in Python, metrics.json for programs, report.html for people."""

import html
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from undiffuse.evaluation import protocol
from undiffuse.evaluation.colors import Color
from undiffuse.evaluation.feature_sets import extrapolation
from undiffuse.evaluation.memorization import FeatureMemorization
from undiffuse.evaluation.metrics import INCEPTION_SCORE, Measurement, MetricValue, class_precision
from undiffuse.evaluation.numbers import finite, number, with_spread
from undiffuse.evaluation.pages import sections
from undiffuse.report import page
from undiffuse.utils.errors import Skipped
from undiffuse.utils.files import write_atomically

VERSION = 2
"""Of metrics.json."""

NOT_CHECKED, NOT_COMPUTED = Skipped("Not checked."), Skipped("Not computed.")

HEADLINE = ("precision", "recall", "coverage")
"""Metrics at the top of the page, besides the distances."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one set of generated images.

    Example:
        evaluation = undiffuse.evaluate("runs/flowers", features="pixels")
        evaluation["FD-pixels"].value, evaluation["FD-pixels"].spread
        evaluation["FD-pixels", "test"]  # against the real images of split test
        [value.metric for value in evaluation.metrics]
        evaluation.write("results")  # report.html and metrics.json
    """

    title: str
    measurements: tuple[Measurement, ...]
    """One for each set of real images, the most important first. Under torchrun empty in all but the main process."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """How the samples were made: run, weights, sampler, seeds and so on; empty for images from elsewhere."""
    colors: dict[str, Color] = field(default_factory=dict)
    memorization: list[FeatureMemorization] | Skipped = NOT_CHECKED
    bits_per_dim: dict[str, Any] | Skipped = NOT_COMPUTED
    """Bits/dim of held-out images, by estimate."""
    training: tuple[dict[str, Any], ...] = ()
    """The lines of the run's log; empty for images from elsewhere."""

    @property
    def metrics(self) -> list[MetricValue]:
        """All values, but only once those that depend on the samples alone."""
        if not self.measurements:
            return []
        first, *others = self.measurements
        return [*first.values, *(v for each in others for v in each.values if v.metric != INCEPTION_SCORE)]

    @property
    def comparable_with_published(self) -> bool:
        """Whether the FID can be compared with published values."""
        return bool(self.measurements) and protocol.verdict(self.measurements[0])[0]

    @property
    def why(self) -> str:
        """Why the FID can, or cannot, be compared with published values, in a sentence."""
        return protocol.verdict(self.measurements[0])[1] if self.measurements else "The main process has the values."

    @property
    def warnings(self) -> list[str]:
        """What to know before believing a value, one sentence each."""
        return protocol.warnings(self.measurements) if self.measurements else []

    def __getitem__(self, name: str | tuple[str, str]) -> MetricValue:
        """The value of a metric; with a split, as in `evaluation["FID", "test"]`, against those real images.

        Raises:
            KeyError: there is no such value. The message names those there are.
        """
        metric, split = (name, None) if isinstance(name, str) else name
        for value in self.metrics:
            if value.metric == metric and split in (None, value.split):
                return value
        names = ", ".join(dict.fromkeys(value.metric for value in self.metrics)) or "none"
        where = "" if split is None else f" against split {split}"
        raise KeyError(f"There is no metric {metric}{where}: there are {names}.")

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds; numbers that are not finite are None."""
        if not self.measurements:
            return {}
        first = self.measurements[0]
        memorization = [] if isinstance(self.memorization, Skipped) else self.memorization
        skipped = {"memorization": self.memorization, "bits_per_dim": self.bits_per_dim}
        return finite(
            {
                "version": VERSION,
                "comparable_with_published": self.comparable_with_published,
                "why": self.why,
                "warnings": self.warnings,
                "metrics": [asdict(value) for value in self.metrics],
                "protocol": {
                    **self.made_by,
                    "samples": protocol.images_protocol(first.fake.images),
                    **protocol.network_protocol(first.fake.network),
                    "references": [protocol.reference_protocol(each) for each in self.measurements],
                    "versions": protocol.package_versions(),
                },
                "precision_by_class": [
                    dict(zip(("class", "n_real", "n_fake", "precision"), row, strict=True))
                    for row in class_precision(first)
                ],
                "colors": {name: asdict(color) for name, color in self.colors.items()},
                "memorization": [_memorization(each) for each in memorization],
                "bits_per_dim": {} if isinstance(self.bits_per_dim, Skipped) else self.bits_per_dim,
                "skipped": {name: part.reason for name, part in skipped.items() if isinstance(part, Skipped)},
            }
        )

    def write(self, folder: str | Path) -> Path:
        """Writes metrics.json and report.html into the folder, and returns the page's path."""
        folder = Path(folder).expanduser()
        report = folder / "report.html"
        if not self.measurements:
            return report
        content = self.to_dict()
        write_atomically(folder / "metrics.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        first = self.measurements[0]
        distances = first.fake.network.distance, first.fake.network.kernel
        headline = [(f"{v.metric}, {v.split}", number(v.value)) for v in self.metrics if v.metric in distances]
        headline += [(value.metric, number(value.value)) for value in first.values if value.metric in HEADLINE]
        headline.append(("samples", f"{len(first.fake):,}"))
        page.write_page(report, self.title, content["why"], headline, self._sections(content))
        return report

    def _sections(self, content: dict[str, Any]) -> list[page.Section]:
        first = self.measurements[0]
        fake, real = first.fake.images, first.real.images
        assumption = "" if self.made_by else "The real images are taken to be the training images. "
        line, distance = extrapolation(first.real, first.fake), first.fake.network.distance
        by_class = content["precision_by_class"]
        return [
            sections.metrics_section(self.metrics, self.warnings),
            sections.images_section(fake, [each.real.images for each in self.measurements]),
            *([sections.extrapolation_section(line, distance, len(real))] if line else []),
            *sections.memorization_sections(fake, real, self.memorization, assumption),
            sections.color_section(self.colors),
            *([sections.class_section(by_class)] if by_class else []),
            *sections.training_sections(self.training),
            sections.bits_section(self.bits_per_dim),
            sections.protocol_section(content["protocol"], "The same in metrics.json, for programs."),
        ]

    def __str__(self) -> str:
        lines = []
        for value in self.metrics:
            sizes = f"{value.n_fake:,} samples against {value.n_real:,} of split {value.split}"
            lines.append(f"{value.metric:<20} {with_spread(value.value, value.spread):<22} {sizes}")
        return "\n".join([*lines, *self.warnings, self.why])

    def __repr__(self) -> str:
        return f"Evaluation: {self.title}\n{self}"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = [
            (v.metric, with_spread(v.value, v.spread), f"{v.n_fake:,}", f"{v.n_real:,} of split {v.split}")
            for v in self.metrics
        ]
        cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        notes = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in [*self.warnings, self.why])
        head = "<tr><th>metric</th><th>value</th><th>samples</th><th>real images</th></tr>"
        return f"<b>{html.escape(self.title)}</b><table>{head}{cells}</table>{notes}"


def _memorization(space: FeatureMemorization) -> dict[str, Any]:
    found = space.found
    return {
        "features": space.features,
        "control": space.control,
        "median_distance_of_samples": found.samples.median().item(),
        "median_distance_of_control": found.control.median().item(),
        "ratio": found.ratio,
        "nearer_than_99_percent_of_control": found.nearer_than_control,
        "AuthPct": 100 * found.authentic,
    }
