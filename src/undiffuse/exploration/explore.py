"""The result of exploring images: numbers, figures and the page."""

import html
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from undiffuse.data.source import Source
from undiffuse.data.store import Store
from undiffuse.exploration.before_after import before_and_after
from undiffuse.exploration.colors import Colors, measure_colors
from undiffuse.exploration.duplicates import Duplicates, find_duplicates
from undiffuse.exploration.figures import FigureData, plots
from undiffuse.exploration.framing import Framing, measure_framing
from undiffuse.exploration.inventory import BadFile, Balance, Inventory, measure_balance, take_inventory
from undiffuse.exploration.named_duplicates import NamedDuplicates, example_pairs, name_duplicates
from undiffuse.exploration.noising import Noising, paper_schedules, tabulate
from undiffuse.exploration.report import write_report
from undiffuse.exploration.samples import draw_samples
from undiffuse.exploration.scan import Scan, scan
from undiffuse.exploration.statistics import Statistics, to_json
from undiffuse.exploration.suggestion import Suggestion
from undiffuse.exploration.summary import summary
from undiffuse.report import style
from undiffuse.utils.names import Fit
from undiffuse.utils.world import World

SuggestRun = Callable[[Inventory], Suggestion | None]
"""Measures the speed of this machine and suggests a first run; None if it cannot."""


class Figures(Mapping[str, Figure]):
    """Figures by name, drawn when they are looked up."""

    def __init__(self, plots: Mapping[str, style.Plot]):
        self._plots = plots

    def __getitem__(self, name: str) -> Figure:
        if name not in self._plots:
            raise KeyError(f"There is no figure {name}: choose {', '.join(self._plots)}.")
        with style.drawn_in(style.LIGHT):
            return self._plots[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._plots)

    def __len__(self) -> int:
        return len(self._plots)

    def __repr__(self) -> str:
        return f"Figures({', '.join(self)})"


@dataclass(frozen=True, repr=False)
class Exploration:
    """What exploring images found. docs/explore.md explains every number.

    Printed, it is the summary that the command line shows; a notebook shows it as a table.
    """

    measured: Statistics
    """All numbers but the suggestion."""
    figure_data: FigureData
    suggest: SuggestRun | None = None

    @property
    def inventory(self) -> Inventory:
        """Images by class, split, file format, mode and size."""
        return self.measured.inventory

    @property
    def bad_files(self) -> tuple[BadFile, ...]:
        """Files that cannot be decoded, each with `name` and `reason`."""
        return self.measured.inventory.bad_files

    @property
    def balance(self) -> Balance | None:
        """How even the classes are; None if there are no classes."""
        return self.measured.balance

    @property
    def framing(self) -> Framing:
        """What bringing the images to one size cuts off, and how much detail remains."""
        return self.measured.framing

    @property
    def colors(self) -> Colors:
        """Mean, standard deviation and histogram of each channel."""
        return self.measured.colors

    @property
    def duplicates(self) -> NamedDuplicates:
        """Exact and near duplicates, within and across splits and classes."""
        return self.measured.duplicates

    @property
    def augmentation(self) -> tuple[str, ...]:
        """The transforms of `figures["augmented"]`, in order: torchvision's, then into [-1, 1]."""
        return self.measured.augmentation

    @property
    def noising(self) -> Noising:
        """The linear and the cosine schedule in numbers."""
        return self.measured.noising

    @cached_property
    def suggestion(self) -> Suggestion | None:
        """A first run for these images on this machine; None if it was switched off or memory did not suffice.

        The speed of this machine is measured on first access, which takes a few seconds.
        """
        return None if self.suggest is None else self.suggest(self.measured.inventory)

    @cached_property
    def figures(self) -> Figures:
        """matplotlib figures by name, such as `figures["classes"]`; each is drawn when it is looked up."""
        return Figures(plots(self.measured, self.figure_data))

    @property
    def statistics(self) -> Statistics:
        """All numbers, with the suggestion."""
        return replace(self.measured, suggestion=self.suggestion)

    def summary(self) -> list[tuple[str, str]]:
        """Names and values, one pair per line, with the suggestion."""
        return summary(self.statistics)

    def write(self, folder: str | Path) -> Path:
        """Writes report.html, figures/ and statistics.json into `folder`, and returns the path of report.html.

        Raises:
            OSError: `folder` cannot be written to.
        """
        folder = Path(folder).expanduser()
        write_report(folder, self.statistics, plots(self.measured, self.figure_data))
        return folder / "report.html"

    def to_dict(self) -> dict[str, Any]:
        """The contents of statistics.json."""
        return json.loads(to_json(self.statistics))

    def __repr__(self) -> str:
        lines = "\n".join(f"  {name:<11} {value}" for name, value in summary(self.measured))
        return f"Exploration of {self.measured.name}\n{lines}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in summary(self.measured)
        )
        return f"<table>{rows}</table>"


def explore_store(
    source: Callable[[], Source],
    store: Store,
    fit: Fit,
    seed: int = 0,
    suggest: SuggestRun | None = None,
    world: World | None = None,
) -> Exploration:
    """Explores decoded images.

    The processes of `world` share the reading and the search for duplicates; the main one does the rest, and all get
    the result.

    Args:
        source: Opens what the store was decoded from. Called in the main process alone.
        fit: How it was decoded.
    """
    world = world or World.alone()
    scanned = scan(store, world)
    duplicates = find_duplicates(scanned, world)
    found = world.on_main(lambda: _found(source(), store, fit, seed, scanned, duplicates))
    return Exploration(*found, suggest)


def _found(
    source: Source, store: Store, fit: Fit, seed: int, scanned: Scan, duplicates: Duplicates
) -> tuple[Statistics, FigureData]:
    inventory = take_inventory(store)
    surest, doubtful = example_pairs(store, duplicates)
    samples, schedules = draw_samples(store, seed=seed), paper_schedules()
    statistics = Statistics(
        name=store.name,
        split=store.split,
        size=store.size,
        fit=fit,
        channels=store.channels,
        inventory=inventory,
        balance=measure_balance(inventory),
        framing=measure_framing(inventory.shapes(), store.size, fit),
        colors=measure_colors(scanned),
        duplicates=name_duplicates(store, duplicates, inventory.splits),
        augmentation=samples.transforms,
        noising=tabulate(schedules),
    )
    data = FigureData(
        samples=samples,
        before_after=before_and_after(source, store),
        mean_image=scanned.mean_image,
        surest_pairs=surest,
        doubtful_pairs=doubtful,
        schedules=schedules,
        seed=seed,
    )
    return statistics, data
