"""The outcome of a comparison: a table and its page."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from undiffuse.data.pixels import to_nchw
from undiffuse.evaluation import protocol
from undiffuse.evaluation.entry import EMA_LENGTH, OMITTED, SECONDS, Entry, LeftOut
from undiffuse.evaluation.numbers import finite, number
from undiffuse.evaluation.pages import costs, sections
from undiffuse.features.image_sets import ImageSet
from undiffuse.report import grids, page
from undiffuse.report.style import LIGHT, drawn_in, png
from undiffuse.utils.files import write_atomically
from undiffuse.utils.text import plural

VERSION = 2
"""Of comparison.json."""

SHOWN = 12
"""Samples of each that the page shows, of the same seeds."""


@dataclass(frozen=True)
class Comparison:
    """The entries of a comparison, as a table.

    Example:
        comparison = undiffuse.compare(["runs/flowers"], steps=[5, 10], features="pixels")
        comparison.rows[0]["NFE"], comparison.rows[0]["seconds per image"], comparison.rows[0]["FD-pixels"]
        comparison.best.candidate.sampling
        comparison.plot()  # the distance against NFE, and against seconds
        comparison.write("results")  # comparison.html, comparison.png and comparison.json
    """

    entries: tuple[Entry, ...]
    """Under torchrun empty in all but the main process."""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The metrics of the table."""
        names = dict.fromkeys(v.metric for entry in self.entries for v in entry.values)
        return [name for name in names if name not in OMITTED]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary an entry: run, sampler, steps, guidance, NFE, seconds, and the value of each metric."""
        return [entry.row | {name: entry.value(name) for name in self.metrics} for entry in self.entries]

    @property
    def best(self) -> Entry:
        """The entry with the smallest Frechet distance.

        Raises:
            ValueError: there are no entries.
        """
        known = [entry for entry in self.entries if entry.value(self._distance) is not None]
        return min(known or self.entries, key=lambda entry: entry.value(self._distance) or 0.0)

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
                "entries": [entry.to_dict() for entry in self.entries],
                "left_out": [asdict(each) for each in self.left_out],
            }
        )

    def plot(self) -> Figure:
        """The Frechet distance against NFE and, where they are known, against seconds per image; of EMAs of several
        lengths, against the length.

        Raises:
            ValueError: there are no entries.
        """
        if not self.entries:
            raise ValueError("There is nothing to draw: the main process has the entries.")
        with drawn_in(LIGHT):
            return costs.side_by_side(self._panels(), self._distance)

    def write(self, folder: str | Path) -> Path:
        """Writes comparison.json, comparison.png and comparison.html into the folder, and returns the page's path."""
        folder = Path(folder).expanduser()
        report = folder / "comparison.html"
        if not self.entries:
            return report
        content, first, best = self.to_dict(), self.entries[0].measurement, self.best
        write_atomically(folder / "comparison.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        write_atomically(folder / "comparison.png", png(self.plot, LIGHT))
        times = len(self.entries[0].repeats)
        several = "" if times == 1 else f"{times} times "
        reference = first.real.images.description
        lead = f"{several}{len(first.fake):,} samples each, of the same seeds, against {reference}. {self.why}"
        headline = [(f"lowest {self._distance}", best.cell(self._distance) or "none"), ("reached by", best.title)]
        page.write_page(report, "Runs and samplers compared", lead, headline, self._sections(content))
        return report

    def _sections(self, content: dict[str, Any]) -> list[page.Section]:
        strips = [page.from_image(_strip(entry.measurement.fake.images), entry.title) for entry in self.entries]
        left_out = page.Section(
            "Left out", "These do not fit together.", rows=[[each.title, each.reason] for each in self.left_out]
        )
        return [
            self._table(),
            self._cost_section(),
            *([left_out] if self.left_out else []),
            page.Section("Samples", "The same seeds everywhere, not selected.", strips),
            sections.protocol_section(content["protocol"], "How each entry was made is in comparison.json."),
        ]

    def _cost_section(self) -> page.Section:
        """The curves, and what they cannot say."""
        times, panels = len(self.entries[0].repeats), self._panels()
        band = "" if times == 1 else f" The bands are one standard deviation of {times} disjoint ranges of seeds."
        figures = [
            page.from_plot(lambda cost=cost: costs.one(panels, cost, self._distance), f"Lower is better.{band}")
            for cost in panels
        ]
        if EMA_LENGTH in panels:
            return page.Section(
                "Against the length of the EMA",
                "The standard deviation of what the EMA averages over, as a fraction of the training. A longer EMA "
                "smooths more, and keeps more of early weights.",
                figures,
            )
        return page.Section(
            "Against the number of function evaluations (NFE) and time",
            f"What more work buys. NFE is counted: a step of heun takes two, and guidance one more each. {self._clock}",
            figures,
            side_by_side=True,
        )

    @property
    def _clock(self) -> str:
        """What the seconds are, and why some are not known."""
        timings = [repeat.timing for entry in self.entries for repeat in entry.repeats if repeat.timing]
        unknown = [entry.title for entry in self.entries if entry.seconds is None]
        sentences = []
        if len(unknown) < len(self.entries):
            machines = " or ".join(dict.fromkeys(timing.machine for timing in timings))
            sentences.append(
                f"Seconds are those of sampling, when the samples were made, on {machines}; other work on the machine "
                "makes them longer."
            )
        if unknown:
            which = plural(len(unknown), "entry") if len(unknown) == 1 else f"{len(unknown)} entries"
            sentences.append(f"The seconds of {which} are not known: not all samples were made in one go.")
        return " ".join(sentences)

    def _table(self) -> page.Section:
        """One row an entry; what is the same in all rows is in the text above the table."""
        rows = [entry.row for entry in self.entries]
        known = [name for name in rows[0] if any(row[name] is not None for row in rows)]
        rows = [{name: row[name] for name in known} for row in rows]
        differ = [name for name in rows[0] if len(rows) == 1 or len({row[name] for row in rows}) > 1]
        same = ", ".join(f"{name} {value}" for name, value in rows[0].items() if name not in differ)
        caution = "Differences within the spreads mean nothing; comparison.json has the spreads of all metrics."
        warnings = protocol.warnings([self.entries[0].measurement])
        return page.Section(
            "Table",
            " ".join([*([f"The same for all: {same}."] if same else []), *warnings, caution]),
            head=[*differ, *self.metrics],
            rows=[
                [*(_text(row[name]) for name in differ), *(entry.cell(metric) for metric in self.metrics)]
                for row, entry in zip(rows, self.entries, strict=True)
            ],
        )

    def _panels(self) -> dict[str, costs.Curves]:
        """The curves of each kind of cost that is known; for EMAs of several lengths one against the length."""
        if self._differ_in_length:
            return {EMA_LENGTH: self._curves(EMA_LENGTH)}
        panels = {cost: self._curves(cost) for cost in ("NFE", SECONDS)}
        return {cost: curves for cost, curves in panels.items() if curves or cost == "NFE"}

    @property
    def _differ_in_length(self) -> bool:
        """Whether the entries are EMAs of one training, sampled in the same way."""
        checkpoints = [entry.candidate.model.checkpoint for entry in self.entries]
        trainings = {checkpoint.ema_of if checkpoint else None for checkpoint in checkpoints}
        ways = {entry.candidate.sampling for entry in self.entries}
        return len(self.entries) > 1 and len(trainings) == len(ways) == 1 and None not in trainings

    def _curves(self, cost: str) -> costs.Curves:
        curves: dict[str, list[costs.Point]] = {}
        one_run = self._differ_in_length or len({entry.candidate.label for entry in self.entries}) == 1
        for entry in self.entries:
            found, spent = entry.find(self._distance), entry.row[cost]
            if found is not None and spent is not None:
                spread = found.spread if len(entry.repeats) > 1 else None
                name = entry.candidate.sampler if one_run else entry.candidate.name
                curves.setdefault(name, []).append(costs.Point(spent, found.value, spread or 0.0))
        return curves

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))

    def __repr__(self) -> str:
        return f"Comparison of {len(self.entries)}\n{self}"


def _text(value: object) -> str:
    return "" if value is None else number(value) if isinstance(value, float) else str(value)


def _strip(images: ImageSet):
    return grids.grid_for_page(to_nchw(images.read(np.arange(min(SHOWN, len(images))))), columns=SHOWN)
