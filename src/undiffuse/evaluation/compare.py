"""Several runs and samplers beside one another: the same reference, as many samples, the same seeds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from undiffuse.config import SamplingConfig
from undiffuse.evaluation import plots, protocol
from undiffuse.evaluation.evaluate import Work, measure, samples
from undiffuse.evaluation.metrics import Comparison
from undiffuse.evaluation.report import flat, number, with_spread
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNet
from undiffuse.report import grids, page
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.sampling.model import Model
from undiffuse.utils.files import write_atomically
from undiffuse.utils.terminal import log

SHOWN = 12
"""Images of each that the page shows: of the same seeds."""


@dataclass(frozen=True)
class Contestant:
    """A run sampled in one way."""

    run: Run
    label: str
    """The run's name, or its folder where several have that name."""
    model: Model
    checkpoint: Checkpoint
    how: SamplingConfig

    @property
    def name(self) -> str:
        return f"{self.label}, {self.how.sampler}"


@dataclass(frozen=True)
class Measured:
    contestant: Contestant
    made_by: dict[str, Any]
    comparison: Comparison

    def value(self, metric: str) -> float | None:
        return next((f.value for f in self.comparison.values if f.metric == metric), None)


def check_same_data(runs: Sequence[Run]) -> None:
    """Raises ValueError where runs read other images, or read them otherwise: no table could compare them."""
    first = runs[0]
    for run in runs[1:]:
        if _reference(run) != _reference(first):
            raise ValueError(
                f"{run.folder.absolute()} and {first.folder.absolute()} were trained on other images, or at another "
                "size, fit or number of channels: their figures cannot be compared; give runs of the same data."
            )


def _reference(run: Run) -> tuple[Any, ...]:
    data = run.config.data
    return run.config.data_content, data.split, data.size, data.fit, data.channels


def compare(
    net: FeatureNet,
    contestants: Sequence[Contestant],
    real: ImageSet,
    seeds: range,
    folder: Path,
    work: Work,
) -> list[Measured]:
    """Measures each at the same seeds, and writes comparison.html and comparison.json into `folder`."""
    measured = []
    for each in contestants:
        log.info(f"\n{each.name}, {each.how.steps} steps")
        fake, made_by = samples(each.run, each.model, each.checkpoint, each.how, seeds, work)
        measured += [Measured(each, made_by, found) for found in measure(net, fake, [real], work)]
    if measured:
        _write(net, measured, folder)
    return measured


def metrics_of(net: FeatureNet) -> list[str]:
    """The table's columns."""
    infinity = f"{net.distance}-infinity"
    return [net.distance, infinity, net.kernel, "Inception Score", "precision", "recall", "density", "coverage"]


def _write(net: FeatureNet, measured: Sequence[Measured], folder: Path) -> None:
    first = measured[0].comparison
    _, why = protocol.verdict(net, first)
    content = {
        "version": 1,
        "why": why,
        "protocol": {
            **protocol.of_features(net),
            "reference": protocol.of_reference(net, first),
            "versions": protocol.versions(),
        },
        "contestants": [
            {**each.made_by, "metrics": [asdict(figure) for figure in each.comparison.values]} for each in measured
        ],
    }
    write_atomically(folder / "comparison.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    best = min(measured, key=lambda each: each.value(net.distance) or 0.0)
    page.write_page(
        folder / "comparison.html",
        title="Runs and samplers compared",
        lead=f"{len(first.fake):,} samples each, of the same seeds, against {first.real.images.what}. {why}",
        headline=[
            (f"lowest {net.distance}", number(best.value(net.distance) or 0.0)),
            ("reached by", f"{best.contestant.name}, {best.contestant.how.steps} steps"),
        ],
        sections=[
            _table(net, measured),
            page.Section(
                "Against steps",
                "What each more function evaluation buys. A step of heun costs two calls, and so does guidance.",
                [
                    page.from_drawing(
                        lambda: plots.against_steps(_curves(net, measured), net.distance), "Lower is better."
                    )
                ],
                side_by_side=True,
            ),
            page.Section(
                "Samples",
                "The same seeds everywhere, none of them picked.",
                [
                    page.from_image(_strip(each.comparison.fake.images), f"{each.contestant.name}, {how.steps} steps")
                    for each in measured
                    for how in [each.contestant.how]
                ],
            ),
            page.Section(
                "Everything that these figures depend on",
                "How each was made stands in comparison.json. Samples are made with the averaged weights.",
                rows=flat(content["protocol"]),
            ),
        ],
    )


def _table(net: FeatureNet, measured: Sequence[Measured]) -> page.Section:
    """A row each; what is the same in all rows is said above instead."""
    rows = [_identity(each) for each in measured]
    differ = [name for name in rows[0] if len(rows) == 1 or len({row[name] for row in rows}) > 1]
    same = ", ".join(f"{name} {value}" for name, value in rows[0].items() if name not in differ)
    shown = [name for name in metrics_of(net) if any(each.value(name) is not None for each in measured)]
    said = "Differences within the spreads say nothing; the spreads of all figures are in comparison.json."
    return page.Section(
        "Table",
        " ".join([*([f"Everywhere: {same}."] if same else []), *protocol.warnings([measured[0].comparison]), said]),
        head=[*differ, *shown],
        rows=[
            [*(row[name] for name in differ), *(_cell(net, each, metric) for metric in shown)]
            for row, each in zip(rows, measured, strict=True)
        ],
    )


def _identity(each: Measured) -> dict[str, Any]:
    how = each.contestant.how
    return {
        "run": each.contestant.label,
        "images seen": f"{each.contestant.checkpoint.images:,}",
        "sampler": how.sampler,
        "steps": how.steps,
        "guidance": f"{how.guidance:g}",
        "function evaluations": each.made_by["nfe"],
    }


def _cell(net: FeatureNet, each: Measured, metric: str) -> str:
    found = next((f for f in each.comparison.values if f.metric == metric), None)
    if found is None:
        return ""
    return with_spread(found) if metric in (net.distance, net.kernel) else number(found.value)


def _curves(net: FeatureNet, measured: Sequence[Measured]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for each in measured:
        value = each.value(net.distance)
        if value is not None:
            curves.setdefault(each.contestant.name, []).append((each.made_by["nfe"], value))
    return curves


def _strip(fake: ImageSet):
    tiles = fake.read(np.arange(min(SHOWN, len(fake))))
    return grids.grid(torch.from_numpy(tiles).permute(0, 3, 1, 2), columns=SHOWN)
